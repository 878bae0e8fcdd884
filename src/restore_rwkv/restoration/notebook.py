"""A restored scan as a notebook shows it: a picture, what was done, and what the values are."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from restore_rwkv.io.html import page_template
from restore_rwkv.restoration.thumbnail import thumbnail_or_none, thumbnail_texts
from restore_rwkv.tasks import get_task, task_of

if TYPE_CHECKING:
    from restore_rwkv.io import RestorationRecord, Volume

_SIDE = 240  # pixels, the longer side of a panel; then a page has less than 200 kB
_MOST_WARNINGS = 5
_FITS = {
    "fit": "the scan is what the weights are for",
    "doubtful": "it is doubtful whether the scan is what the weights are for",
    "unfit": "the scan is not what the weights are for",
}


@dataclass(frozen=True)
class Picture:
    """One slice before and after, and their difference.

    Attributes:
        data: PNG in base64.
        slice: which one, such as "axial slice 10 of 20".
        window: values shown from dark to bright, such as "-160 to 240 HU".
        difference: ends of the scale of differences, such as "±40 HU".
        inverted: whether the lowest value is white, as PET is shown.
    """

    data: str
    slice: str
    window: str
    difference: str
    inverted: bool


def notebook_html(record: RestorationRecord, before: Volume | None, after: Volume) -> str:
    """Return a fragment of HTML of less than 200 kB, without scripts, that stands on its own.

    Its colours are those of the page around it. Every text is escaped.

    Args:
        record: how the scan was restored.
        before: what the network was given; None where it was not kept, for no picture.
        after: the restored scan on the same grid.
    """
    said = record.warnings  # of a file, with what was found, behind the file's name
    found = [finding.text for finding in record.fit.findings]
    warnings = [text for text in found if not any(line.endswith(text) for line in said)]
    warnings += said
    left_out = len(warnings) - _MOST_WARNINGS
    if left_out > 0:
        warnings = [*warnings[:_MOST_WARNINGS], f"and {left_out} more, see the record"]
    template = page_template("restore_rwkv.restoration", "notebook.html")
    return template.render(
        sentence=verdict(record),
        picture=_picture(record, before, after),
        facts=list(_facts(record, after)),
        warnings=warnings,
        notice=record.notice,
    )


def verdict(record: RestorationRecord) -> str:
    """Return in one sentence what was done: task, weights, strength, fit, and what was kept."""
    weights = Path(record.weights).stem
    parts = [f"Restored for {record.task} with {weights} at {100 * record.strength:.0f} % strength"]
    if record.kept is not None:
        rows, columns = record.kept
        parts.append(f"the measured block of {rows} x {columns} samples of k-space was kept")
    forced = ", but was restored all the same" if record.fit.forced else ""
    parts.append(f"{_FITS[record.fit.outcome]}{forced}")
    return f"{'; '.join(parts)}."


def _picture(record: RestorationRecord, before: Volume | None, after: Volume) -> Picture | None:
    if before is None:
        return None
    axis = record.slice_axis
    middle = before.data.shape[axis] // 2
    png = thumbnail_or_none(before, after, axis, record.modality, index=middle, side=_SIDE)
    if png is None:
        return None
    data = base64.b64encode(png).decode("ascii")
    return Picture(data, **thumbnail_texts(png), inverted=record.modality == "PT")


def _facts(record: RestorationRecord, after: Volume) -> Iterator[tuple[str, str]]:
    """Names and values of the rows of the table."""
    code = record.modality or ""
    unit = record.unit or (task_of(code).unit if code in ("CT", "MR") else "")
    unit_text = f" {unit}" if unit else ""
    shape = " x ".join(str(size) for size in after.data.shape)
    spacing = after.spacing
    where = "without geometry" if spacing is None else f"of {_numbers(spacing)} mm"
    yield "grid", f"{shape} voxels {where}"
    low, high = float(after.data.min()), float(after.data.max())
    yield "values", f"{low:.4g} to {high:.4g}{unit_text}" + ("" if unit else ", unit unknown")
    change = record.change
    yield (
        "change",
        f"{change.mean:+.3g}{unit_text} on average, {change.largest:.3g}{unit_text} at most",
    )
    if change.noise_before is not None and change.noise_after is not None:
        noise_unit = get_task(record.task).rules.noise_unit
        noise = f"{change.noise_before:.3g} {noise_unit} before, {change.noise_after:.3g} after"
        yield "noise", noise
    yield "time", f"{record.seconds:.1f} s on {record.device}"


def _numbers(values: tuple[float, ...]) -> str:
    return " x ".join(f"{value:.3g}" for value in values)
