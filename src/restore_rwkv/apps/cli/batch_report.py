"""What is said at the end of a batch: a table, an overview, and JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore_rwkv.apps.cli.console import plain_table
from restore_rwkv.apps.cli.messages import with_flags
from restore_rwkv.apps.cli.progress import in_words
from restore_rwkv.apps.cli.terminal import escaped, say, screen, show, show_line

if TYPE_CHECKING:
    from rich.table import Table

    from restore_rwkv.batch import Entry, Manifest, Outcome, Summary

_MOST_ROWS = 40


def report(path: Path, summary: Summary, json_file: str | None) -> None:
    """Print the table, and write the overview and what `--json` asks for.

    Args:
        path: of the manifest; the overview comes beside it.
        summary: of the run that has ended.
        json_file: "-" for lines on stdout, the name of a file, or None.
    """
    from restore_rwkv.batch import Manifest
    from restore_rwkv.batch.overview import write_overview

    with Manifest(path) as manifest:
        if json_file not in (None, "-"):
            _write_report(Path(str(json_file)), manifest, summary)
        found = chain(manifest.entries(faults=True), manifest.entries(faults=False))
        warned: Counter[str] = Counter()
        entries = (_in_flags(entry, warned) for entry in found)
        stem = path.stem.replace("manifest", "overview")
        overview = write_overview(entries, manifest.counts(), summary, path.parent, stem)
        if manifest.counts():
            show(_table(manifest))
    if screen.as_json:
        show_line({"summary": _totals(summary), "warnings": screen.warnings})
    warnings = f"; {warned.total()} restored with warnings" if warned else ""
    say(f"{_in_words(summary)}{warnings}; every scan: {overview}")


def _in_flags(entry: Entry, warned: Counter[str]) -> Entry:
    """Return a scan with its messages in the words of the command line; count those warned of."""
    if entry.outcome is None:
        return entry
    record = entry.outcome.record
    if record and record.get("warnings"):
        warned[entry.outcome.state] += 1
        record = {**record, "warnings": [worded(str(text)) for text in record["warnings"]]}
    reason = worded(entry.outcome.reason, entry.name, entry.source)
    return replace(entry, outcome=replace(entry.outcome, reason=reason, record=record))


def _in_words(summary: Summary) -> str:
    counts = ", ".join(f"{number} {state}" for state, number in summary.counts.items() if number)
    if not counts:
        return "no scans in this share" if summary.found else "no scans found"
    network = f", the network {in_words(summary.network_seconds)}" * bool(summary.counts["done"])
    return f"{counts}; {in_words(summary.seconds)}{network}"


def _table(manifest: Manifest) -> Table:
    """Every scan where there are few, and else those without a result."""
    from restore_rwkv.batch.description import size

    few = sum(manifest.counts().values()) <= _MOST_ROWS
    table = plain_table("scan", "outcome", "seconds", "read", "written", "reason")
    rows = 0
    for entry in manifest.entries(faults=None if few else True, pictures=False):
        outcome = entry.outcome
        if outcome is None:
            continue
        rows += 1
        if rows > _MOST_ROWS:
            table.add_row("...", "", "", "", "", "all of them are in the overview")
            break
        table.add_row(
            escaped(entry.name),
            outcome.state + (", warned" if (outcome.record or {}).get("warnings") else ""),
            f"{outcome.seconds:.1f}",
            size(outcome.bytes_read),
            size(outcome.bytes_written),
            escaped(worded(outcome.reason, entry.name, entry.source)),
        )
    return table


def _write_report(path: Path, manifest: Manifest, summary: Summary) -> None:
    """Write the report, one scan after the other, as a batch may have many."""
    from restore_rwkv.io import atomic_file

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(f'{{"summary": {json.dumps(_totals(summary))},\n "scans": [')
        for number, line in enumerate(_lines(manifest)):
            file.write(",\n  " if number else "\n  ")
            file.write(json.dumps(line))
        file.write("\n ]}\n")


def _lines(manifest: Manifest) -> Iterator[dict[str, Any]]:
    for entry in manifest.entries(pictures=False):
        if entry.outcome is not None:
            yield as_json(entry.name, entry.source, entry.target, entry.outcome)


def _totals(summary: Summary) -> dict[str, Any]:
    return {
        **summary.counts,
        "seconds": summary.seconds,
        "network_seconds": summary.network_seconds,
        "bytes_read": summary.bytes_read,
        "bytes_written": summary.bytes_written,
    }


def as_json(name: str, source: str, target: str, outcome: Outcome) -> dict[str, Any]:
    """Return a scan and its outcome as JSON values."""
    return {
        "name": name,
        "source": source,
        "target": target,
        "state": outcome.state,
        "kind": outcome.kind,
        "reason": worded(outcome.reason),
        "seconds": outcome.seconds,
        "network_seconds": outcome.network_seconds,
        "bytes_read": outcome.bytes_read,
        "bytes_written": outcome.bytes_written,
        "attempts": outcome.attempts,
        "worker": outcome.worker,
        "record": outcome.record,
    }


def worded(text: str, name: str = "", source: str = "") -> str:
    """Return a message of the library in the words of the command line.

    Args:
        text: the message.
        name: of a scan, which the message need not begin with, as it is told already.
        source: path of that scan, likewise.
    """
    from restore_rwkv.apps.cli.app import option_flags

    flags: Callable[[], dict[str, str]] = option_flags
    text = with_flags(text, flags())
    told = (f"{one}: " for one in (name, source, Path(source).name) if one)
    return next((text.removeprefix(start) for start in told if text.startswith(start)), text)
