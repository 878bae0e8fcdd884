"""Instances, a clock and parts of a node for its tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from restore_rwkv.apps.node.spooling.spool import Instance

UNSENT: Mapping[str, str] = {}


class Clock:
    """A clock that is set by the test."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def make_instance(
    folder: Path,
    series: int,
    number: int,
    *,
    announced: int | None = None,
    header: Mapping[str, str] = UNSENT,
    content: str = "",
) -> Instance:
    """Write a file that stands for a received instance, and describe it."""
    series_uid, sop_uid = f"1.2.{series}", f"1.2.{series}.{number}"
    path = folder / "spool" / f"s{series}" / f"i{number}.dcm"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(sop_uid)
    return Instance(
        study_uid="1.2",
        series_uid=series_uid,
        sop_instance_uid=sop_uid,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax="1.2.840.10008.1.2.1",
        origin="dimse:CT1",
        path=path,
        size=100,
        sha256=f"digest of {sop_uid}{content}",
        header={"Modality": "CT", **header},
        announced=announced,
    )
