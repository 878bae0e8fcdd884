"""The overview of a batch: pages of HTML that need nothing from elsewhere, one entry a scan."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore_rwkv.batch.description import describe, duration, size, verdict
from restore_rwkv.io import atomic_files, claimed
from restore_rwkv.io.html import page_template
from restore_rwkv.io.record import program_version
from restore_rwkv.tasks import NOTICE

if TYPE_CHECKING:
    from restore_rwkv.batch.manifest import Entry
    from restore_rwkv.batch.run import Summary

SCANS_A_PAGE = 200
STATES = {
    "failed": "the machine, the disk or this program is the reason",
    "refused": "the scan itself is the reason",
    "waiting": "the batch did not come to it",
    "done": "restored",
    "skipped": "restored before",
}
"""States of scans, those to look at first, and what they mean."""


def write_overview(
    entries: Iterable[Entry],
    counts: Mapping[str, int],
    summary: Summary,
    folder: Path,
    stem: str = "overview",
) -> Path:
    """Write the overview of a batch: `overview.html`, and `overview-2.html` ... of 200 scans each.

    The pages load nothing, and work without their script, which filters and sorts. All appear
    together or not at all; further pages of an earlier overview are removed.

    Args:
        entries: scans in the order to be shown, those to look at first; read once, and held in
            memory for one page at a time.
        counts: number of the entries by state, as `Manifest.counts` returns it.
        summary: of the run that has ended.
        folder: where to write it; it must exist.
        stem: name of the first page, without ".html".

    Returns:
        Path of the first page.

    Raises:
        InputError: another process writes the overview.
        ValueError: there are more or fewer entries than counted.
        OSError: the pages cannot be written.
    """
    total = sum(counts.values())
    pages = max(1, -(-total // SCANS_A_PAGE))
    names = [f"{stem}.html", *(f"{stem}-{page}.html" for page in range(2, pages + 1))]
    paths = [folder / name for name in names]
    with claimed(paths[0]), atomic_files(*paths, overwrite=True) as temporaries:
        values = _totals(counts, summary) | {"names": names}
        _write_pages(entries, total, values, temporaries)
    _remove_pages_after(pages, folder, stem)
    return paths[0]


def _write_pages(
    entries: Iterable[Entry], total: int, values: Mapping[str, Any], paths: Sequence[Path]
) -> None:
    template = page_template("restore_rwkv.batch", "overview.html")
    remaining = iter(entries)
    for page, path in enumerate(paths, start=1):
        first = (page - 1) * SCANS_A_PAGE
        scans = [describe(entry) for entry in islice(remaining, SCANS_A_PAGE)]
        if len(scans) != min(SCANS_A_PAGE, total - first):
            raise ValueError(f"there are {first + len(scans)} entries, and {total} are counted")
        html = template.render(values, page=page, first=first, scans=scans)
        path.write_text(html, encoding="utf-8", newline="\n")
    if next(remaining, None) is not None:
        raise ValueError(f"there are more entries than the {total} that are counted")


def _remove_pages_after(last: int, folder: Path, stem: str) -> None:
    for path in folder.iterdir():
        number = re.fullmatch(rf"{re.escape(stem)}-([1-9]\d*)\.html", path.name)
        if number is not None and int(number[1]) > last:
            path.unlink(missing_ok=True)


def _totals(counts: Mapping[str, int], summary: Summary) -> dict[str, Any]:
    """What the template says of the whole batch."""
    done = summary.counts.get("done", 0)
    restored = f"{done:,} restored in {duration(summary.seconds)}"
    earlier = summary.counts.get("skipped", 0)
    facts = [
        ("this run", f"{restored}, {earlier:,} by earlier runs" if earlier else restored),
        ("data", f"{size(summary.bytes_read)} read, {size(summary.bytes_written)} written"),
        ("network", f"{duration(summary.network_seconds)} over all workers"),
    ]
    if done and summary.seconds > 0:
        facts.insert(1, ("throughput", f"{3600 * done / summary.seconds:,.0f} scans an hour"))
    return {
        "verdict": verdict(counts),
        "counts": {state: counts.get(state, 0) for state in STATES},
        "states": STATES,
        "total": sum(counts.values()),
        "facts": facts,
        "notice": NOTICE,
        "software": program_version(),
    }
