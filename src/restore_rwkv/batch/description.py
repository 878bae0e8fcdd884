"""A scan of a batch in words: what the overview says of it, from its outcome and its record."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from restore_rwkv.restoration.thumbnail import thumbnail_texts
from restore_rwkv.tasks import MODALITIES, task_of

if TYPE_CHECKING:
    from restore_rwkv.batch.job import Outcome
    from restore_rwkv.batch.manifest import Entry

_WARNINGS = 20  # of one scan
_LARGEST = 1e300
_FITS = {"fit": "yes", "doubtful": "doubtful", "unfit": "no, restored all the same"}
_KINDS = {
    "input": "The scan cannot be used",
    "unfit": "Not an image that these weights are for",
    "weights": "The weights cannot be used",
    "usage": "A setting does not suit this scan",
    "system": "The machine or its disk is at fault",
    "bug": "A fault of this program; please report it",
}


@dataclass(frozen=True)
class Picture:
    """A thumbnail.

    Attributes:
        data: its PNG in base64.
        slice: which one, such as "axial slice 5 of 20".
        window: values shown from dark to bright, such as "-160 to 240 HU".
        difference: ends of the scale of differences, such as "±40 HU".
    """

    data: str
    slice: str
    window: str
    difference: str


@dataclass(frozen=True)
class Description:
    """A scan in words. The texts are not escaped.

    Attributes:
        state: of its outcome; "waiting" where there is none.
        name: of the scan.
        title: what is wrong, in a few words; empty where nothing is.
        reason: the message; empty where there is none.
        picture: None where there is none.
        facts: names and values of what is looked at first.
        others: names and values of the rest.
        warnings: what speaks against the result.
        seconds: that it took.
        size: bytes read and written.
    """

    state: str
    name: str
    title: str
    reason: str
    picture: Picture | None
    facts: tuple[tuple[str, str], ...]
    others: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    seconds: float = 0.0
    size: int = 0


def describe(entry: Entry) -> Description:
    """Return a scan of a manifest in words."""
    outcome = entry.outcome
    places = (("source", entry.source), ("result", entry.target))
    if outcome is None:
        return Description("waiting", entry.name, "", "", None, (), places, ())
    record = outcome.record or {}
    warnings = tuple(_warnings(record))
    left_out = len(warnings) - _WARNINGS
    if left_out > 0:
        warnings = (*warnings[:_WARNINGS], f"and {left_out} more, see the record")
    return Description(
        state=outcome.state,
        name=entry.name,
        title=_KINDS.get(outcome.kind, ""),
        reason=outcome.reason,
        picture=_picture(outcome.thumbnail),
        facts=(*_facts(record), *_costs(outcome)),
        others=(*places, *_others(outcome, record)),
        warnings=warnings,
        seconds=outcome.seconds,
        size=outcome.bytes_read + outcome.bytes_written,
    )


def duration(seconds: float) -> str:
    """Return a time such as "0.8 s", "2 min 5 s" or "3 h 12 min"."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def size(count: int) -> str:
    """Return a number of bytes such as "12 kB" or "3.4 GB"."""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.4g} TB"


def verdict(counts: Mapping[str, int]) -> str:
    """Return what came of all scans in one sentence.

    Args:
        counts: number of scans by state.
    """
    total = sum(counts.values())
    restored = counts.get("done", 0) + counts.get("skipped", 0)
    if not total:
        return "No scans were found."
    if restored == total:
        return f"All {total:,} scans restored." if total > 1 else "The only scan is restored."
    words = {"failed": "failed", "refused": "refused", "waiting": "not reached"}
    parts = [f"{counts[state]:,} {word}" for state, word in words.items() if counts.get(state)]
    return f"{restored:,} of {total:,} scans restored, {', '.join(parts)}."


def _picture(image: bytes | None) -> Picture | None:
    texts = thumbnail_texts(image or b"")
    if image is None or not texts:
        return None
    names = ("slice", "window", "difference")
    return Picture(
        base64.b64encode(image).decode("ascii"), *(texts.get(name, "") for name in names)
    )


def _facts(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What was done, with what, and what that changed; a record on disk may have been edited."""
    for name in ("task", "weights"):
        if isinstance(record.get(name), str):
            yield name, record[name]
    outcome = _part(record, "fit").get("outcome")
    if isinstance(outcome, str):
        yield "fits", _FITS.get(outcome, outcome)
    strength = _number(record, "strength")
    if strength is not None:
        yield "strength", f"{100 * strength:.0f} %"
    scale = _number(record, "scale")
    if scale is not None:
        yield "grid", f"{scale:g} times finer"
    volumes = _number(record, "volumes")
    if volumes is not None and volumes > 1:
        yield "volumes", f"{volumes:g}"
    change, code = _part(record, "change"), record.get("modality")
    before, after = _number(change, "noise_before"), _number(change, "noise_after")
    modality = MODALITIES.get(code) if isinstance(code, str) else None
    if before is not None and after is not None and modality is not None:
        yield "noise", f"{before:.3g} {modality.noise_unit} before, {after:.3g} after"
    mean, largest = _number(change, "mean"), _number(change, "largest")
    if mean is not None and largest is not None:
        unit = record.get("unit") or (task_of("CT").unit if code == "CT" else "")
        largest_change = f"{largest:.3g} {unit}".strip()
        yield "change", f"{mean:+.3g} on average, {largest_change} at most"


def _costs(outcome: Outcome) -> Iterator[tuple[str, str]]:
    yield "time", duration(outcome.seconds)
    written = f", {size(outcome.bytes_written)} written" if outcome.bytes_written else ""
    yield "data", f"{size(outcome.bytes_read)} read{written}"


def _others(outcome: Outcome, record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if outcome.network_seconds:
        yield "network", duration(outcome.network_seconds)
    if outcome.attempts > 1:
        yield "attempts", str(outcome.attempts)
    if outcome.worker:
        yield "worker", outcome.worker
    for name, key in (("device", "device"), ("software", "software"), ("made", "created")):
        if isinstance(record.get(key), str):
            yield name, record[key]
    yield "key", outcome.key


def _warnings(record: Mapping[str, Any]) -> Iterator[str]:
    """Findings of the fit, then the warnings of the run."""
    for finding in _list(_part(record, "fit"), "findings"):
        text = finding.get("text") if isinstance(finding, Mapping) else None
        if isinstance(text, str):
            yield text
    for warning in _list(record, "warnings"):
        if isinstance(warning, str):
            yield warning


def _part(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = record.get(name)
    return part if isinstance(part, Mapping) else {}


def _list(record: Mapping[str, Any], name: str) -> list[Any]:
    values = record.get(name)
    return list(values) if isinstance(values, list | tuple) else []


def _number(record: Mapping[str, Any], name: str) -> float | None:
    value = record.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < _LARGEST else None  # and not NaN
