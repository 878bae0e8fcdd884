"""TLS of DICOM associations: the contexts of both roles, from the files of the settings."""

from __future__ import annotations

import ssl

from restore_rwkv.apps.node.config import TLS
from restore_rwkv.errors import ConfigError


def server_context(files: TLS) -> ssl.SSLContext:
    """Return the context of the receiver, which asks every peer for a certificate.

    Raises:
        ConfigError: the files cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    return _loaded(context, files)


def client_context(files: TLS) -> ssl.SSLContext:
    """Return the context of a sender, which checks the certificate and the name of the peer.

    Raises:
        ConfigError: the files cannot be used.
    """
    return _loaded(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), files)


def _loaded(context: ssl.SSLContext, files: TLS) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(files.certificate, files.key)
        context.load_verify_locations(files.authorities)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"node: tls: the certificate, its key or the authorities cannot be used ({error}); "
            "give PEM files that belong together"
        ) from error
    return context
