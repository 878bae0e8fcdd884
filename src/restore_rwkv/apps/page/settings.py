"""What the page is started with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"
DEFAULT_CAP = 4 << 30


@dataclass(frozen=True, kw_only=True)
class PageSettings:
    """Settings of the page.

    Attributes:
        path: folder or file whose scans are offered; None for those only that are dropped.
        demo: whether the demo scan is offered where no path is given.
        host: address to listen at.
        port: to listen at; 0 for any free one.
        device: where networks run unless a job says otherwise, as for `Restorer`.
        upload_cap: bytes that one upload may have; of a dropped folder all its files.
        state: folder that keeps jobs and uploads; None for a private one that is removed at the
            end.
    """

    path: Path | None = None
    demo: bool = True
    host: str = LOOPBACK
    port: int = 0
    device: str = "auto"
    upload_cap: int = DEFAULT_CAP
    state: Path | None = None
