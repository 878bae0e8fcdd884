"""The results of `benchmarks.on_gpu` as one page of Markdown, from whatever files are there."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

TRAINING = "training"


def summary(out: Path) -> str:
    """Return the page; it says of each stage that is missing that it is."""
    machine = _read(out / "machine.json") or {}
    lines = ["# Run on one machine", "", *(f"- {key}: {value}" for key, value in machine.items())]
    lines += ["", "## Stages", "", *_stages(_read(out / "stages.json"))]
    lines += ["", "## Tests", "", *_tests(out / "tests.json")]
    lines += ["", "## Operator", "", *_operator(_read(out / "operator.json"))]
    lines += ["", "## Network", "", *_network(_read(out / "network.json"))]
    lines += ["", "## Training", "", *_training(out / TRAINING)]
    return "\n".join(lines) + "\n"


def rows_of_tests(path: Path) -> list[dict[str, Any]]:
    """Read the rows that `benchmarks.pytest_rows` wrote, without a torn last one."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _stages(stages: Any) -> list[str]:
    if not stages:
        return ["None has ended."]
    lines = ["| stage | seconds | of | ended |", "|---|---|---|---|"]
    return lines + [
        f"| {s['stage']} | {s['seconds']:.0f} | {s['allowed']:.0f} | {s['ended']} |" for s in stages
    ]


def _tests(path: Path) -> list[str]:
    content = _read(path)
    if content is None:
        return ["Not run."]
    counts = Counter(row["outcome"] for row in content)
    failed = [row for row in content if row["outcome"] == "failed"]
    lines = [
        ", ".join(f"{count} {outcome}" for outcome, count in counts.items()) or "No test ended"
    ]
    for row in failed:
        lines += ["", f"- `{row['test']}`: {(row['reason'].splitlines() or [''])[-1]}"]
    return lines


def _operator(rows: Any) -> list[str]:
    if not rows:
        return ["Not measured."]
    lines = [
        "Median ms; the share is that of the bandwidth of a copy.",
        "",
        "| backend | batch | T | C | dtype | error | copy | forward | share | columns | backward |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    notes = []
    for row in rows:
        if "left_out" in row:
            notes.append(f"- {_named(row)}: left out: {row['left_out']}")
        elif "errors" in row:
            errors = ", ".join(f"{name} {error:.0e}" for name, error in row["errors"].items())
            verdict = "correct" if row["correct"] else "**wrong**"
            notes.append(f"- {row['backend']} against float64 with gradients: {verdict} ({errors})")
        else:
            share = row["copy_ms"][0] / row["forward_ms"][0]
            times = [_median(row.get(f"{what}_ms")) for what in ("copy", "forward")]
            rest = [_median(row.get(f"{what}_ms")) for what in ("columns", "backward")]
            names = [row[key] for key in ("backend", "batch", "tokens", "channels", "dtype")]
            cells = [*names, f"{row['error']:.0e}", *times, f"{100 * share:.0f} %", *rest]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return [*lines, "", *notes]


def _network(rows: Any) -> list[str]:
    if not rows:
        return ["Not measured."]
    lines = [
        "| network | what | mode | images | ms | error | peak, MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    notes = []
    for row in rows:
        if "left_out" in row:
            notes.append(f"- {_named(row)}: left out: {row['left_out']}")
            continue
        error = f"{row['error']:.0e}" if "error" in row else ""
        peak = "" if row.get("peak_mib") is None else f"{row['peak_mib']:.0f}"
        images = f"{row['batch']} of {row['size']} x {row['size']}"
        cells = [row["network"], row["what"], row["mode"], images, _median(row["ms"]), error, peak]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", *notes]


def _training(folder: Path) -> list[str]:
    results = [_read(path) for path in sorted(folder.glob("*/result.json"))]
    if not results:
        return ["Nothing was trained."]
    lines = [
        "| recipe | iterations | batch, crop | s | s a step | images a second | waiting for data | "
        "peak, MiB | best gain on validation, dB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        done = f"{result.get('done', 0)} of {result['iterations']}"
        cells = [result["recipe"], done + (", cut off" if result["cut_off"] else "")]
        cells += [f"{result['batch']}, {result['crop']}", result.get("seconds", "")]
        cells += [f"{result['seconds_per_step']:.4f}", result.get("images_per_second", "")]
        cells += [result.get("waiting", ""), result.get("peak_mib"), _best(result)]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def _best(result: dict[str, Any]) -> str:
    """Gains of the validation with the largest mean over the tasks."""
    validations = result.get("validations", [])
    known = [gains for _, gains in validations if None not in gains.values()]
    if not known:
        return "none"
    best = max(known, key=lambda gains: sum(gains.values()) / len(gains))
    return ", ".join(f"{task} {gain:+.2f}" for task, gain in best.items())


def _median(times: Any) -> str:
    return "" if times is None else f"{times[0]:.3f}"


def _named(row: dict[str, Any]) -> str:
    return ", ".join(str(value) for key, value in row.items() if key not in ("left_out", "error"))
