"""A challenge as CSV, and as plain values for JSON."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from restore_rwkv.evaluation.challenge.results import Challenge, Summary

FORMAT = "restore-rwkv challenge 1"
"""Changes when a value changes its meaning; values may be added without."""

LESIONS = ("scan", "method", "contrast", "radius_mm", "i", "j", "k", "retained")
PLACES = ("scan", "method", "radius_mm", "i", "j", "k", "shown", "of_input", "of_truth", "painted")


def write_lesions(challenge: Challenge, path: Path) -> None:
    """Write a row for each lesion and method as CSV; numbers keep all their digits."""
    rows = (
        (row.scan, row.method, row.contrast, row.radius, *row.index, row.retained)
        for row in challenge.lesions
    )
    _write(path, LESIONS, rows)


def write_places(challenge: Challenge, path: Path) -> None:
    """Write a row for each place without a lesion and method as CSV."""
    rows = (
        (
            row.scan,
            row.method,
            row.radius,
            *row.index,
            row.shown,
            row.of_input,
            row.of_truth,
            row.painted,
        )
        for row in challenge.places
    )
    _write(path, PLACES, rows)


def challenge_values(challenge: Challenge) -> dict[str, Any]:
    """Return a challenge without its pictures and single lesions as plain values for JSON."""
    return {
        "format": FORMAT,
        "task": challenge.task,
        "unit": challenge.unit,
        "methods": list(challenge.methods),
        "scans": {
            name: {"slices": slices, "lesions": lesions, "places": places}
            for name, (slices, lesions, places) in challenge.scans.items()
        },
        "summaries": [_summary_values(summary) for summary in challenge.summaries],
        "comparisons": [dataclasses.asdict(each) for each in challenge.comparisons],
        "overall": [
            {
                "method": each.method,
                "score": each.score,
                "flagged": each.flagged.to_dict(),
                "agreement": each.agreement,
            }
            for each in challenge.overall
        ],
        "frequency": challenge.frequency,
        "provenance": dict(challenge.provenance),
    }


def sentence_of(challenge: Challenge) -> str:
    """Return what was challenged, in a sentence or two."""
    lesions, places = ([counts[which] for counts in challenge.scans.values()] for which in (1, 2))
    scans = len(challenge.scans)
    each = "" if scans == 1 else f" ({', '.join(map(str, lesions))})"
    return (
        f"{_counted(sum(lesions), 'lesion')} of each kind{each} and "
        f"{_counted(sum(places), 'place')} without one, in {_counted(scans, 'scan')}.\n"
        f"Intervals are within {'this scan' if scans == 1 else f'these {scans} scans'} only, as if "
        "lesions were independent; they say nothing about other patients."
    )


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _summary_values(summary: Summary) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field in dataclasses.fields(summary):
        value = getattr(summary, field.name)
        if hasattr(value, "to_dict"):
            value = value.to_dict()
        elif field.name == "seen" and value is not None:
            value = dataclasses.asdict(value)
        values[field.name] = value
    return values


def _write(path: Path, columns: Sequence[str], rows: Iterator[Any]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
