"""Settings of the node: its tables, and what is checked of each and between them."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from annotated_types import Ge, Gt, Le
from pydantic import BeforeValidator, StringConstraints

from restore_rwkv.apps.node.rules import Name, Rule
from restore_rwkv.errors import ConfigError
from restore_rwkv.options import Count, Expected, parse_memory, validated


def _bytes(value: Any) -> Any:
    return parse_memory(value) if isinstance(value, str) else value


Size = Annotated[int, BeforeValidator(_bytes), Gt(0), Le(2**60), Expected('a size such as "200GB"')]
Seconds = Annotated[float, Gt(0), Le(1e9), Expected("a number of seconds above 0")]
Days = Annotated[float, Ge(0), Le(36500), Expected("a number of days from 0")]
Port = Annotated[int, Ge(1), Le(65535), Expected("a port, 1 to 65535")]
AETitle = Annotated[
    str,
    StringConstraints(pattern=r"^[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?$"),
    Expected("an AE title: 1 to 16 characters of ASCII, no backslash"),
]
File = Annotated[Path, Expected("a path")]


@validated("node", table="tls")
@dataclass(frozen=True, kw_only=True)
class TLS:
    """Certificates for DICOM over TLS.

    Attributes:
        certificate: own certificate and its chain, PEM.
        key: its private key, PEM; a file that not everyone may read.
        authorities: certificates that those of the peers are checked against, PEM. A receiver asks
            every sender for a certificate.
    """

    certificate: File
    key: File
    authorities: File


@validated("node", table="peers")
@dataclass(frozen=True, kw_only=True)
class Peer:
    """A sender that may open associations.

    Attributes:
        name: for logs and metrics.
        ae_title: its calling AE title.
        address: its IP address, or a network such as "10.0.3.0/24"; "" for any.
    """

    name: Name
    ae_title: AETitle
    address: str = ""

    def __post_init__(self) -> None:
        try:
            if self.address:
                ipaddress.ip_network(self.address)
        except ValueError as error:
            raise ConfigError(
                f"node: peers.address is {self.address!r} ({error}); give an IP address, a "
                'network such as "10.0.3.0/24", or "" for any'
            ) from error

    def allows(self, ae_title: str, address: str) -> bool:
        """Whether a calling AE title from an IP address is this peer."""
        if ae_title.strip() != self.ae_title:
            return False
        if not self.address:
            return True
        found = ipaddress.ip_address(address.partition("%")[0])
        mapped = getattr(found, "ipv4_mapped", None)  # ::ffff:10.0.3.1 of a socket for both
        return (mapped or found) in ipaddress.ip_network(self.address)


@validated("node", table="limits")
@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one sender may ask of the node.

    Attributes:
        associations: most associations at a time.
        instance_bytes: largest instance, such as "2GB".
        series_instances: most instances of a series.
        series_bytes: largest series.
        instances_per_second: highest rate of a peer; what comes faster is answered later.
    """

    associations: Count = 20
    instance_bytes: Size = 2 * 10**9
    series_instances: Count = 5000
    series_bytes: Size = 20 * 10**9
    instances_per_second: Count = 500


@dataclass(frozen=True, kw_only=True)
class _Web:
    """Where a DICOMweb service is, and how the node shows who it is.

    Attributes:
        url: root of the service, such as "https://pacs/dicom-web"; credentials need https, but
            for this machine.
        user: name for HTTP basic authentication.
        password_file: file of its password; not one that everyone may read.
        token_file: file of a bearer token, read anew for each request; likewise.
        authorities: certificates that the server's is checked against, PEM; None for the system's.
    """

    url: str = ""
    user: str = ""
    password_file: File | None = None
    token_file: File | None = None
    authorities: File | None = None

    def check(self, table: str) -> None:
        """Raise ConfigError where the address or the credentials do not go together."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"node: {table}.url is {self.url!r}; give one such as https://pacs/dicom-web"
            )
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ConfigError(
                f"node: {table}.url holds credentials, a query or a fragment; give user and "
                "password_file, or token_file"
            )
        if bool(self.user) != (self.password_file is not None):
            raise ConfigError(f"node: {table} has one of user and password_file; give both")
        if self.user and self.token_file:
            raise ConfigError(f"node: {table} has user and token_file; give one of them")
        secret = self.user or self.token_file
        if secret and parts.scheme == "http" and not is_loopback(parts.hostname):
            raise ConfigError(
                f"node: {table}.url is {self.url!r}, and its credentials could be read on the way; "
                "give https"
            )


@validated("node", table="destinations")
@dataclass(frozen=True, kw_only=True)
class Destination(_Web):
    """Where derived series are sent.

    Attributes:
        name: as rules name it in `send_to`.
        kind: "dimse" for C-STORE, "web" for STOW-RS.
        ae_title: dimse: its AE title.
        host: dimse: name or IP address.
        port: dimse.
        tls: dimse: send over TLS with the certificates of `[tls]`.
    """

    name: Name
    kind: Literal["dimse", "web"]
    ae_title: AETitle | None = None
    host: str = ""
    port: Port | None = None
    tls: bool = False

    def __post_init__(self) -> None:
        dimse = {"ae_title": self.ae_title, "host": self.host, "port": self.port}
        web = ("url", "user", "password_file", "token_file", "authorities")
        if self.kind == "web":
            wrong = [name for name, value in (*dimse.items(), ("tls", self.tls)) if value]
            missing = [] if self.url else ["url"]
        else:
            wrong = [name for name in web if getattr(self, name)]
            missing = [name for name, value in dimse.items() if not value]
        if wrong or missing:
            fault = f"{missing[0]} is missing; add it" if missing else f"leave {wrong[0]} out"
            raise ConfigError(f"node: destinations of kind {self.kind!r}: {fault}")
        if self.kind == "web":
            self.check("destinations")


@validated("node", table="archives")
@dataclass(frozen=True, kw_only=True)
class Archive(_Web):
    """A DICOMweb archive that is watched for new series.

    Attributes:
        name: as the conditions `peer` of rules name it.
        every_seconds: time between two searches.
        modalities: those of the series that are looked for; empty for all.
        days: how many days back, by StudyDate.
    """

    name: Name
    every_seconds: Seconds = 60.0
    modalities: Annotated[tuple[str, ...], Expected('a list such as ["CT", "MR"]')] = ()
    days: Count = 2

    def __post_init__(self) -> None:
        self.check("archives")


@validated("node", table="")
@dataclass(frozen=True, kw_only=True)
class NodeConfig:
    """All settings of a node.

    Attributes:
        folder: where everything lies that has to outlast the process: queue, spool, results.
        ae_title: of the node.
        host: address to listen at: by default this machine only; "0.0.0.0" for all networks.
        port: to listen at.
        quota: most bytes of received files; derived ones may take as much again.
        quiet_seconds: a series is complete when nothing more has come for this long.
        keep_days: how long a series that has ended stays, with its files.
        attempts: how often restoring is tried where the machine, and not the series, fails.
        send_days: for how long sending is tried again while a destination does not answer.
        retry_seconds: wait before the second try; each further wait is twice as long, at most
            an hour.
        device: of the network: "auto", "cpu", "cuda", ...
        jobs: number of processes that restore.
        memory: for the activations of the network of one process.
        max_memory: most that the processes of one way to restore take together; a series that does
            not fit now waits. None for 80 % of what is free when they start.
        metrics_port: port on 127.0.0.1 of /metrics and /health; 0 for none.
        log_patient_data: write UIDs and descriptions to the log, instead of short hashes.
        peers: who may send; nobody else.
        rules: the first that matches decides; a series that none matches is refused.
        destinations: where results can be sent.
        archives: DICOMweb archives to watch.
        limits: what one sender may ask.
        tls: certificates of the node; None for plain DICOM.
    """

    folder: File
    ae_title: AETitle = "RESTORE-RWKV"
    host: str = "127.0.0.1"
    port: Port = 11112
    quota: Size = 200 * 10**9
    quiet_seconds: Seconds = 60.0
    keep_days: Days = 7.0
    attempts: Count = 10
    send_days: Days = 7.0
    retry_seconds: Seconds = 30.0
    device: str = "auto"
    jobs: Count = 1
    memory: Size = 2 << 30
    max_memory: Size | None = None
    metrics_port: Annotated[int, Ge(0), Le(65535), Expected("a port, or 0 for none")] = 9104
    log_patient_data: bool = False
    peers: tuple[Peer, ...] = ()
    rules: tuple[Rule, ...] = ()
    destinations: tuple[Destination, ...] = ()
    archives: tuple[Archive, ...] = ()
    limits: Limits = Limits()
    tls: TLS | None = None

    def __post_init__(self) -> None:
        for table in ("peers", "rules", "destinations", "archives"):
            names = [row.name for row in getattr(self, table)]
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise ConfigError(f"node: {table} has two named {twice!r}; give each its own name")
        if not self.peers and not self.archives:
            raise ConfigError(
                "node: neither peers nor archives are given, so nothing can arrive; add one"
            )
        if not self.rules:
            raise ConfigError("node: rules are missing, so all would be refused; add one")
        known = [destination.name for destination in self.destinations]
        for rule in self.rules:
            for name in rule.send_to:
                if name not in known:
                    raise ConfigError(
                        f"node: rule {rule.name!r}: send_to names {name!r}, which is not in "
                        f"destinations; choose from {', '.join(known) or 'none, add one'}"
                    )
        for destination in self.destinations:
            if destination.tls and self.tls is None:
                raise ConfigError(
                    f"node: destination {destination.name!r} is over TLS, but the table tls is "
                    "missing; add it"
                )

    def destination(self, name: str) -> Destination | None:
        """Return the destination of a name; None where there is none (any more)."""
        return next((d for d in self.destinations if d.name == name), None)


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own network."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
