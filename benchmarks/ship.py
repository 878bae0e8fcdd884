"""Ship the weights of a finished run, with a card made from measurements.

    python -m benchmarks.ship NAME [--runs runs] [--scans FOLDER]

compares the run with the weights that its tasks use now, on the validation subjects. If the run is
better for every task, or is the one that is shipped, it writes
`src/restore_rwkv/weights/NAME.safetensors` (float16) and its card, whose figures are those of
`restore-rwkv evaluate`. The strength of the correction is calibrated on the validation subjects of
CT and PET, and drawn to `docs/NAME-strength.png`. The test subjects are looked at only then.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks import strength as calibration
from benchmarks.fit import ranges_of
from benchmarks.train_shipped import ROOT, SHIPPED, read_log
from restore_rwkv.apps.cli.console import score_row
from restore_rwkv.data import PreparedSet
from restore_rwkv.evaluation import MeanScore, calibrate, evaluate_set
from restore_rwkv.evaluation.figures import gain_curves
from restore_rwkv.evaluation.scores import mean_over_patients
from restore_rwkv.io import atomic_file
from restore_rwkv.model import WeightsInfo, find_weights, load_weights, read_info, save_weights
from restore_rwkv.restoration import RestoreOptions, Restorer
from restore_rwkv.tasks import ALL_IN_ONE, NOTICE, TASKS, Strength, Task

WEIGHTS = ROOT / "src" / "restore_rwkv" / "weights"
AIMS = {"mri-sr": 1.6, "ct-denoise": 3.0, "pet-synth": 7.3}
"""Aims in dB over the input, for the mean over the test subjects of a task."""
_EVERY = 3  # slices between those that the strength is calibrated on
_POINTS = 8  # rows of the table of gains over the time of training
_EXCLUDED = {
    "mri-sr": "Scans that are not the central quarter of k-space per axis, and other contrasts and "
    "body parts than those below: untested.",
    "ct-denoise": "Other doses than those below, kernels and noise textures, and other body parts: "
    "untested. Children and obese patients: not in the data.",
    "pet-synth": "Real PET, until you have tested it: the data are **simulated PET**.",
}

Scores = dict[str, dict[str, dict[str, MeanScore]]]  # by way of restoring, subject, image


def main() -> None:
    """Compare, write the weights and the card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=SHIPPED)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    parser.add_argument(
        "--no-ensemble", action="store_true", help="leave out its rows, which take long"
    )
    parser.add_argument("--scans", type=Path, help="folder of the open scans; runs/open/scans")
    arguments = parser.parse_args()
    run, data = arguments.runs / arguments.name, arguments.runs / "open"
    network, info = load_weights(run / "best.safetensors")
    target = WEIGHTS / f"{arguments.name}.safetensors"
    if not target.exists() or read_info(target).training != info.training:
        for name in info.scaling:
            _require_better(TASKS[name], run / "best.safetensors", data, len(info.scaling))
    words: dict[str, Any] = {"scaling": info.scaling, "training": info.training}
    with tempfile.TemporaryDirectory() as folder:  # shipped once all is measured
        made = Path(folder) / target.name
        save_weights(made, network, **words, dtype=torch.float16)
        strength, tables = calibrated(arguments.name, info, made, data, arguments.scans)
        words |= {"strength": strength, "fit": ranges_of(info, data)}
        info = save_weights(made, network, **words, dtype=torch.float16)
        of_split = {
            split: {
                name: scored(TASKS[name], made, data, split, not arguments.no_ensemble)
                for name in info.scaling
            }
            for split in ("validation", "test")
        }
        lines = card(
            *(arguments.name, info, made.stat().st_size, run, data),
            *(of_split["validation"], of_split["test"], tables),
        )
        with atomic_file(target) as temporary:
            shutil.copyfile(made, temporary)
    target.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"wrote {target} and its card; commit both with the documents that quote figures")


def calibrated(
    name: str, info: WeightsInfo, weights: Path, data: Path, scans: Path | None
) -> tuple[dict[str, Strength], list[str]]:
    """Calibrate the strength of weights by task, draw it, and return the lines of a card."""
    strength, panels, lines = {}, {}, []
    for task in (TASKS[name] for name in info.scaling):
        if task.rules.noise_unit is not None:
            measured, reference = calibration.measure(task, weights, data, scans, _EVERY)
            pixel = calibration.pixel_of(task)
            strength[task.name] = calibrate(measured, reference, pixel)
            panels |= calibration.curves(measured, strength[task.name], task)
            lines += [*calibration.table(measured, strength[task.name], task), ""]
    if strength:
        gain_curves(panels, ROOT / "docs" / f"{name}-strength.png")
    return strength, lines


def _require_better(task: Task, weights: Path, data: Path, tasks: int) -> None:
    """Exit unless a run beats, on validation, the weights that are shipped."""
    prepared = PreparedSet.read(data / task.name)
    before = f"light-{ALL_IN_ONE}" if tasks > 1 else task.weights
    means = []
    for candidate in (weights, find_weights(before)):
        scores = evaluate_set(prepared, Restorer(task.name, candidate), "validation")
        means.append(_gain(mean_over_patients(scores)))
    print(f"{task.name}: validation {means[0]:+.3f} dB, {before} {means[1]:+.3f} dB", flush=True)
    if means[0] <= means[1]:
        sys.exit(f"{weights}: not better than {before} on validation; train longer")


def scored(task: Task, weights: Path, data: Path, split: str, ensemble: bool) -> Scores:
    """Score weights in each way of restoring that the task has."""
    prepared = PreparedSet.read(data / task.name)
    restorer = Restorer(task.name, weights)
    ways = {"network alone": RestoreOptions(consistency=0, strength=1.0)}
    if restorer.uses_factor(task, RestoreOptions()):
        ways["as `restore` does"] = RestoreOptions()
    if ensemble:
        ways["with `--ensemble`"] = RestoreOptions(ensemble=True)
    scores: Scores = {}
    for way, options in ways.items():
        start = time.perf_counter()
        scores[way] = evaluate_set(prepared, restorer, split, options)  # type: ignore[arg-type]
        print(f"{task.name} {split}, {way}: {time.perf_counter() - start:.0f} s", flush=True)
    return scores


def card(
    name: str,
    info: WeightsInfo,
    size: int,
    run: Path,
    data: Path,
    validation: dict[str, Scores],
    test: dict[str, Scores],
    strength: list[str],
) -> list[str]:
    """Return the lines of a card; `size` is that of the file, `strength` is of `calibrated`."""
    simulated = " (**trained and tested on simulated PET**)"
    tasks = "; ".join(
        f"`{task}`: {TASKS[task].title}{simulated if task == 'pet-synth' else ''}"
        for task in info.scaling
    )
    lines = [
        f"# {name}",
        "",
        f"**{NOTICE}**",
        "",
        "| | |",
        "|---|---|",
        f"| tasks | {tasks} |",
        f"| network | {_network(info)} |",
        f"| file | float16, {size / 1e6:.1f} MB |",
        f"| SHA-256 of the tensors | `{info.sha256}` |",
        f"| scaling | {'; '.join(_scaling(task, rule) for task, rule in info.scaling.items())} |",
        f"| training | {_training(name, info, run)} |",
        f"| data | `restore-rwkv data prepare open`; manifests {_manifests(info)} |",
        "| licence | Apache-2.0 |",
        "",
        "This card was written by `python -m benchmarks.ship`.",
        "",
        "## Gain on subjects it has never seen",
        "",
        *_gains(test, "test"),
        "",
        "## Gain on the validation subjects",
        "",
        "They chose the iteration that is shipped, the number of steps of consistency, and the "
        "strength.",
        "",
        *_gains(validation, "validation"),
        "",
        *(_strength(name, strength) if strength else []),
        "## Gain per hour of training",
        "",
        *_hours(run),
        "",
        "## Data",
        "",
        *_subjects(info, data),
        "",
        "## Not for",
        "",
        "- Diagnosis, treatment, or any measurement that a patient's care depends on.",
        *(f"- `{task}`: {_EXCLUDED[task]}" for task in info.scaling),
        *(f"- `{task}`: {TASKS[task].not_for}" for task in info.scaling),
    ]
    return lines


def _strength(name: str, tables: list[str]) -> list[str]:
    return [
        "## Strength by noise level",
        "",
        f"`python -m benchmarks.strength {name} data/open --every {_EVERY}`, the validation "
        "subjects: PSNR gained over the input by the network on its own (strength 1, told the "
        "dose), told the dose (`--factor`), and with the noise found in the image. Drawn in "
        f"`docs/{name}-strength.png`.",
        "",
        *tables,
    ]


def _network(info: WeightsInfo) -> str:
    config = info.config
    told = ", told how much of the noise to remove" if config.noise_level else ""
    patch = f", patches of {config.patch} x {config.patch} pixels" if config.patch > 1 else ""
    blocks = ", ".join(map(str, config.num_blocks))
    return (
        f"{info.parameters:,} parameters, merged; {config.dim} channels, blocks {blocks} and "
        f"{config.num_refinement_blocks}{patch}{told}; our own configuration, not the paper's"
    )


def _scaling(task: str, rule: Any) -> str:
    if rule.kind == "robust":
        return f"`{task}`: one factor per volume (foreground mean 10)"
    offset = f" - {rule.offset:g}" if rule.offset else ""
    return f"`{task}`: value{offset} / {rule.scale:g} {TASKS[task].unit}"


def _training(name: str, info: WeightsInfo, run: Path) -> str:
    recipe = info.training["recipe"]
    starts = json.loads((run / "run.json").read_text(encoding="utf-8"))["starts"]
    settings = recipe["training"]
    started = info.training.get("started_from")
    return (
        f"recipe `{name}`, seed {recipe['seed']}, {info.training['iteration']:,} iterations of "
        f"{settings['iterations']:,} (the best on validation), {settings['optimizer']}"
        f"{_origin(started) if started else ''}; {len(starts)} "
        f"start{'s' if len(starts) > 1 else ''}, {sum(s['cpu_hours'] for s in starts):.1f} h of "
        f"processor time on {starts[-1]['device']}, PyTorch {starts[-1]['versions']['torch']}"
    )


def _origin(started: dict[str, Any]) -> str:
    """Words for the weights that a run started from."""
    iterations = started["training"].get("iteration")
    after = f" after {iterations:,} iterations" if isinstance(iterations, int) else ""
    return f", started from the weights `{started['sha256'][:16]}...`{after}"


def _manifests(info: WeightsInfo) -> str:
    return ", ".join(f"`{entry['manifest_sha256'][:16]}...`" for entry in info.training["data"])


def _gains(of_tasks: dict[str, Scores], split: str) -> list[str]:
    option = "" if split == "test" else f" --split {split}"
    lines = [
        f"`restore-rwkv evaluate data/open/TASK --weights NAME{option}`, `--consistency 0 "
        "--strength 1` for the network alone: means over all slices of each subject, the paper's "
        "protocol. CT and PET are told the dose.",
        "",
        "| task, subject | image | PSNR dB | gain dB | SSIM | RMSE | slices |",
        "|---|---|---|---|---|---|---|",
    ]
    verdicts = []
    for task, ways in of_tasks.items():
        subjects = next(iter(ways.values()))
        for subject, scores in subjects.items():
            before = scores["input"]
            lines.append(_row(f"`{task}`, {subject}", "input", before, before))
            for way, by_subject in ways.items():
                lines.append(_row("", way, by_subject[subject]["restored"], before))
        gain = _gain(mean_over_patients(ways.get("as `restore` does", subjects)))
        missed = AIMS[task] - gain
        verdict = f"**missed by {missed:.2f} dB**" if missed > 0 else "met"
        verdicts.append(
            f"`{task}`: {gain:+.2f} dB in the mean over subjects; the aim of {AIMS[task]:+.1f} dB "
            f"is {verdict}."
        )
    return [*lines, "", *verdicts] if split == "test" else lines


def _row(subject: str, image: str, score: MeanScore, before: MeanScore) -> str:
    _, psnr, ssim, rmse, slices = score_row(image, score)
    gain = "" if score is before else f"{_gain({'input': before, 'restored': score}):+.2f}"
    return f"| {subject} | {image} | {psnr} | {gain} | {ssim} | {rmse} | {slices} |"


def _gain(scores: Mapping[str, MeanScore]) -> float:
    """PSNR gained over the input in dB."""
    before, after = scores["input"].psnr, scores["restored"].psnr
    assert before is not None
    assert after is not None
    return after - before


def _hours(run: Path) -> list[str]:
    rows = read_log(run)
    chosen = rows[:: max(1, len(rows) // _POINTS)]
    if rows[-1] not in chosen:
        chosen.append(rows[-1])
    columns = [name for name in rows[0] if name.endswith(".gain")]
    names = ", ".join(column.removesuffix(".gain") for column in columns)
    lines = [
        f"| iterations | hours of one core | gain on validation dB ({names}) |",
        "|---|---|---|",
    ]
    for row in chosen:
        gains = ", ".join(f"{float(row[column]):+.2f}" for column in columns)
        lines.append(f"| {int(row['iteration']):,} | {float(row['cpu_hours']):.2f} | {gains} |")
    return lines


def _subjects(info: WeightsInfo, data: Path) -> list[str]:
    lines = ["| task | split | subject | package | licence |", "|---|---|---|---|---|"]
    shared = []
    for task in info.scaling:
        prepared = PreparedSet.read(data / task)
        seen = {
            (stack.split, stack.patient): (stack.origin["package"], stack.origin["licence"])
            for stack in prepared.stacks
        }
        lines += [
            f"| `{task}` | {split} | {patient} | {package} | {licence} |"
            for (split, patient), (package, licence) in seen.items()
        ]
        shared += [
            f"Slices of {patient} are in more than one split of `{task}`, some distance apart."
            for patient in prepared.shared_patients
        ]
    return [
        *lines,
        "",
        *shared,
        "Low quality is simulated by the physics of this package, as the documentation describes.",
    ]


if __name__ == "__main__":
    main()
