"""Certificates for tests of TLS, made by openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificates:
    """Files of a certificate for the host name localhost.

    Attributes:
        certificate: the certificate, PEM.
        key: its private key, PEM.
        authorities: the authority that signed it.
        stranger: another authority.
    """

    certificate: Path
    key: Path
    authorities: Path
    stranger: Path


def make_certificates(folder: Path) -> Certificates:
    """Make an authority, a certificate of it, and another authority."""
    for name in ("authority", "stranger"):
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem", "-days", "2"),
            *("-subj", f"/CN={name}"),
        )
    _openssl(
        *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
        *("-keyout", folder / "own.key", "-out", folder / "own.csr", "-subj", "/CN=localhost"),
    )
    (folder / "own.cnf").write_text("subjectAltName=DNS:localhost\n")
    _openssl(
        *("x509", "-req", "-in", folder / "own.csr", "-CA", folder / "authority.pem"),
        *("-CAkey", folder / "authority.key", "-CAcreateserial", "-days", "2"),
        *("-extfile", folder / "own.cnf", "-out", folder / "own.pem"),
    )
    names = ("own.pem", "own.key", "authority.pem", "stranger.pem")
    return Certificates(*(folder / name for name in names))


def _openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
