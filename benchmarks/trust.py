"""Tables of docs/trust.md, and the section of each weight card that follows from them.

    python -m benchmarks.trust challenge FOLDER...   # results of `restore-rwkv challenge`, kept
    python -m benchmarks.trust tables                # prints the tables of docs/trust.md
    python -m benchmarks.trust cards                 # writes the section of each shipped card

It reads docs/challenge.json, docs/places.json (`benchmarks.places`) and the calibration in the
shipped weights (`benchmarks.intervals`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.places import ALARMS
from benchmarks.ship import WEIGHTS
from benchmarks.train_shipped import ROOT
from restore_rwkv.io import atomic_file
from restore_rwkv.model import read_info
from restore_rwkv.tasks import TASKS, ReportCalibration

CHALLENGE = ROOT / "docs" / "challenge.json"
PLACES = ROOT / "docs" / "places.json"
SECTION = "## What its restorations can be trusted for"
_KEPT = ("method", "contrast", "radius", "lesions", "retained", "lost", "kept", "invented", "seen")


def collect(folders: list[Path], path: Path) -> None:
    """Keep what tables need of some results, by task and split."""
    results = read(path)
    for folder in folders:
        found = json.loads((folder / "challenge.json").read_text("utf-8"))
        made = found["provenance"]
        results.setdefault(found["task"], {})[made["split"]] = {
            "scans": found["scans"],
            "unit": found["unit"],
            "rows": [{key: row[key] for key in _KEPT} for row in found["summaries"]],
            "comparisons": found.get("comparisons", []),
            "flagged": {row["method"]: row["flagged"] for row in found["overall"]},
            "blur_mm": made["blur_mm"],
            "seed": made["seed"],
            "weights": made["weights"],
        }
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """Read a file of results; none without the file."""
    results: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return results


def challenge_table(results: dict[str, Any], split: str) -> Iterator[str]:
    """Yield the lines of the table of lesions lost and invented."""
    yield (
        "| task | image | contrast, radius | lesions in scans | contrast retained | lost % | "
        "kept % | invented % | d' |"
    )
    yield "|---" * 9 + "|"
    for task, of_task in results.items():
        if split not in of_task:
            continue
        unit = "HU" if TASKS[task].unit == "HU" else "%"
        scans = len(of_task[split]["scans"])
        for row in of_task[split]["rows"]:
            seen = row["seen"]
            observed = "-"
            if seen is not None:
                observed = f"{seen['d_prime']:.1f} ({seen['low']:.1f}-{seen['high']:.1f})"
            shares = [share(row[name]) for name in ("lost", "kept", "invented")]
            yield (
                f"| `{task}` | {row['method']} | {row['contrast']:g} {unit}, {row['radius']:g} mm "
                f"| {row['lesions']} in {scans} | {row['retained']:.2f} | {' | '.join(shares)} "
                f"| {observed} |"
            )


def comparison_table(results: dict[str, Any], split: str) -> Iterator[str]:
    """Yield the lines of the table of methods on the same lesions."""
    yield (
        "| task | image, less another | contrast, radius | lesions in scans | contrast retained | "
        "lost only by it, only by the other | p |"
    )
    yield "|---" * 7 + "|"
    for task, of_task in results.items():
        unit = "HU" if TASKS[task].unit == "HU" else "%"
        for each in of_task.get(split, {}).get("comparisons", []):
            low, high = each["interval"] or (each["retained"],) * 2
            p = "-" if each["p"] is None else f"{each['p']:.2g}"
            yield (
                f"| `{task}` | {each['method']}, less {each['other']} "
                f"| {each['contrast']:g} {unit}, "
                f"{each['radius']:g} mm | {each['lesions']} in {each['scans']} | "
                f"{each['retained']:+.2f} ({low:+.2f} to {high:+.2f}) | "
                f"{each['lost']}, {each['lost_by_other']} | {p} |"
            )


def share(rate: dict[str, Any]) -> str:
    """Return a rate in percent with its interval."""
    if not rate["count"]:
        return "-"
    ends = f"{100 * rate['low']:.0f}-{100 * rate['high']:.0f}"
    return f"{100 * rate['share']:.0f} ({ends})"


def interval_table() -> Iterator[str]:
    """Yield the lines of the table of intervals that the shipped weights have."""
    yield "| weights, task | by | subjects, pixels | nominal | held on other slices of these |"
    yield "|---" * 5 + "|"
    for path in sorted(WEIGHTS.glob("*.safetensors")):
        for task, calibration in read_info(path).report.items():
            for each in calibration.intervals:
                yield (
                    f"| {path.stem}, `{task}` | {each.method} | {each.subjects}, {each.pixels:,} | "
                    f"{100 * each.level:g} % | {100 * each.coverage:.1f} % |"
                )


def card_lines(name: str) -> Iterator[str]:
    """Yield the section of a card."""
    info = read_info(WEIGHTS / f"{name}.safetensors")
    places, lesions = read(PLACES), read(CHALLENGE)
    yield SECTION
    yield ""
    yield (
        "`python -m benchmarks.trust cards`, from what `docs/trust.md` explains. Few scans: it "
        "shows how the weights behave, not how safe they are. Intervals are within these scans "
        "only."
    )
    yield ""
    for task in info.scaling:
        lines = [*_of_lesions(task, name, lesions)]
        calibration = info.report.get(task, ReportCalibration())
        for each in calibration.intervals:
            lines.append(
                f"- `{task}`: {100 * each.level:g} % intervals by {each.method} held "
                f"{100 * each.coverage:.1f} % of the pixels of validation slices that they were "
                f"not fitted on (subjects of the validation: {each.subjects}). They are blind to "
                "what the network always does."
            )
        of_task = places.get(task)
        if calibration.places is not None and of_task and of_task["weights"] == name:
            lines += _of_places(task, of_task)
        yield from lines or [f"- `{task}`: not measured."]
    yield ""


def _of_lesions(task: str, name: str, results: dict[str, Any]) -> Iterator[str]:
    unit = "HU" if TASKS[task].unit == "HU" else "%"
    for split in ("validation", "test"):
        of_split = results.get(task, {}).get(split, {})
        rows, scans = of_split.get("rows", []), len(of_split.get("scans", ()))
        inputs = {(r["contrast"], r["radius"]): r for r in rows if r["method"] == "input"}
        for row in rows:
            if row["method"] != name:
                continue
            before = inputs[row["contrast"], row["radius"]]
            yield (
                f"- `{task}`, {split}: lesions of {row['contrast']:g} {unit} and "
                f"{row['radius']:g} mm radius keep {row['retained']:.2f} of their contrast (in the "
                f"input {before['retained']:.2f}); lost {share(row['lost'])} %, invented "
                f"{share(row['invented'])} %, of {row['lesions']} in {scans} scan"
                f"{'' if scans == 1 else 's'}."
            )


def _of_places(task: str, of_task: dict[str, Any]) -> Iterator[str]:
    unit = "HU" if TASKS[task].unit == "HU" else "%"
    found = ", ".join(
        f"{100 * row['in_five']:.0f} % of {row['contrast']:g} {unit}"
        for row in of_task["test"]["rows"]
        if row["kind"] == "removed"
    )
    yield (
        f"- `{task}`: of lesions of 5 mm radius that a restored image lacks, the five places of "
        f"the report show {found} (test); a slice without them has "
        f"{of_task['test']['alarms']:.2f} flagged places (validation "
        f"{of_task['validation']['alarms']:.2f}, {ALARMS:g} allowed)."
    )


def write_cards() -> None:
    """Write the section into each card, in place of the one before, or else at its end."""
    for path in sorted(WEIGHTS.glob("*.md")):
        if path.stem == "README":
            continue
        text = path.read_text(encoding="utf-8")
        before, _, rest = text.partition(f"{SECTION}\n")
        _, mark, tail = rest.partition("\n## ")
        after = mark.lstrip("\n") + tail
        lines = "\n".join(card_lines(path.stem))
        with atomic_file(path) as temporary:
            content = f"{before.rstrip()}\n\n{lines}" + (f"\n{after}" if after else "")
            temporary.write_text(content.rstrip() + "\n", encoding="utf-8")


def main() -> None:
    """Keep results, print tables, or write cards."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("do", choices=("challenge", "tables", "cards"))
    parser.add_argument("folders", nargs="*", type=Path)
    words = parser.parse_args()
    if words.do == "challenge":
        collect(words.folders, CHALLENGE)
    elif words.do == "cards":
        write_cards()
    else:
        for split in ("validation", "test"):
            print(f"{split}:\n", *challenge_table(read(CHALLENGE), split), "", sep="\n")
            print(*comparison_table(read(CHALLENGE), split), "", sep="\n")
        print(*interval_table(), sep="\n")


if __name__ == "__main__":
    main()
