"""The open benchmark: the shipped weights, any others, and submissions, in tables to quote.

`make benchmark` runs it::

    python -m benchmarks.open_benchmark [--data runs/open] [--weights FILE...]
        [--submission [NAME=]FOLDER...] [--tasks TASK...] [--seconds] [-o runs/benchmark]
    python -m benchmarks.open_benchmark inputs -o FOLDER [--format npy|nifti]
    python -m benchmarks.open_benchmark check --submission FOLDER...

The sets are made from the packages if they are missing, and compared with the digests of
`open_benchmark.toml`. Tables go to stdout; `results.json`, `scores.csv`, `report.html` and
`table.md` to the output folder, together. docs/benchmark.md describes submissions.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.open_definition import FILE, ROOT, SPLIT, Definition, checked_sets, code_of
from benchmarks.open_inputs import write_inputs
from benchmarks.open_results import FILES, joined, methods_of, write
from benchmarks.open_seconds import seconds_of
from benchmarks.open_submissions import Submission, read_submission, sha256_of
from restore_rwkv.apps.cli.exit_codes import kind_of
from restore_rwkv.apps.cli.progress import progress_bar
from restore_rwkv.data import PreparedSet
from restore_rwkv.errors import ConfigError, InputError, WeightsError, message_of
from restore_rwkv.evaluation import Study, StudyRequest, evaluate_study
from restore_rwkv.evaluation.study.faults import FaultList
from restore_rwkv.evaluation.study.files import PANELS
from restore_rwkv.evaluation.study.naming import unique_names
from restore_rwkv.io import Progress, claimed
from restore_rwkv.io.outputs import check_writable
from restore_rwkv.model import WeightsInfo, find_weights, read_info, shipped_weights
from restore_rwkv.restoration.device import find_device
from restore_rwkv.tasks import TASKS


def main(words: Sequence[str] | None = None) -> int:
    """Run a benchmark, write its inputs, or check submissions; return the exit code."""
    arguments = _arguments(words)
    try:
        _run(arguments)
    except Exception as error:
        message = message_of(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        return kind_of(error).code
    return 0


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    several: dict[str, Any] = {"nargs": "+", "action": "extend", "default": []}
    parser.add_argument("action", nargs="?", choices=("run", "inputs", "check"), default="run")
    parser.add_argument("--data", type=Path, default=ROOT / "runs" / "open", help="prepared sets")
    parser.add_argument("--weights", **several, metavar="FILE", help="beside those shipped")
    parser.add_argument("--submission", **several, metavar="[NAME=]FOLDER")
    parser.add_argument("--tasks", **several, metavar="TASK", help="all by default")
    parser.add_argument("-o", "--output", type=Path, help="runs/benchmark by default")
    parser.add_argument("--format", choices=("npy", "nifti"), default="npy", help="of inputs")
    parser.add_argument("--seconds", action="store_true", help="measure seconds per slice")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--definition", type=Path, default=FILE, help="another benchmark")
    found = parser.parse_args(words)
    if found.action == "inputs" and found.output is None:
        parser.error("inputs needs -o FOLDER")
    if found.action == "check" and not found.submission:
        parser.error("check needs --submission FOLDER")
    found.output = found.output or ROOT / "runs" / "benchmark"
    found.command = shlex.join(
        ["python", "-m", "benchmarks.open_benchmark", *(sys.argv[1:] if words is None else words)]
    )
    return found


def _run(arguments: argparse.Namespace) -> None:
    definition = Definition.read(arguments.definition)
    tasks = tuple(task for task in definition.data if task in (arguments.tasks or definition.data))
    for task in arguments.tasks:
        if task not in definition.data:
            raise ConfigError(f"task {task!r} is unknown; choose from {', '.join(definition.data)}")
    if arguments.action == "run":
        _check_output(arguments)
    sets = checked_sets(definition, arguments.data, tasks)
    if arguments.action == "inputs":
        write_inputs(arguments.output, definition, sets, arguments.format)
        print(f"{arguments.output}: low-quality images and a statement to fill in")
        return
    weights = find_all_weights(arguments.weights, tasks)
    submissions = read_submissions(arguments.submission, definition, sets, list(weights))
    if arguments.action == "check":
        for submission in submissions:
            print(f"{submission.folder}: {submission.name}, {', '.join(submission.tasks)}: good")
        return
    code = code_of()  # before others can change it
    with ExitStack() as stack:
        paths = [arguments.output / name for name in FILES]
        stack.enter_context(claimed(*paths))
        seconds = _seconds(arguments, sets, weights)
        with progress_bar("loading PyTorch", "restoring", "slices") as progress:
            study = evaluated(definition, sets, weights, submissions, arguments, progress)
        for submission in submissions:
            if sha256_of(submission.folder) != submission.sha256:
                raise InputError(
                    f"{submission.folder}: has changed while it was scored; run this again"
                )
        methods = methods_of(weights, submissions, seconds)
        write(arguments.output, definition, study, methods, code, _note(arguments))
    print((arguments.output / "table.md").read_text(encoding="utf-8"))


def read_submissions(
    given: Sequence[str],
    definition: Definition,
    sets: Mapping[str, PreparedSet],
    names: Sequence[str] = (),
) -> list[Submission]:
    """Read and check all submissions.

    Args:
        given: each as "FOLDER" or "NAME=FOLDER".
        definition: of the benchmark.
        sets: prepared sets by task.
        names: of other methods, beside the shipped weights.

    Raises:
        InputError: some are faulty; the message has a line for each fault.
    """
    faults = FaultList()
    found = []
    for text in given:
        with faults.collected():
            submission = read_submission(text, definition, sets, faults)
            found += [submission] if submission else []
    taken = [name.casefold() for name in (*shipped_weights(), *names)]
    for submission in found:
        if submission.name and submission.name.casefold() in taken:
            faults.add(
                f"{submission.folder}: another method is called {submission.name} too; give "
                "--submission NAME=FOLDER"
            )
        taken.append(submission.name.casefold())
    faults.refuse()
    return found


def find_all_weights(given: Sequence[str], tasks: Sequence[str]) -> dict[str, tuple[Path, Any]]:
    """Return the shipped weight files and those given, with what they hold, by name.

    Raises:
        WeightsError: a file is missing, damaged, or for none of the tasks.
        ConfigError: names of files do not tell them apart in the tables of all tasks.
    """
    faults = FaultList()
    infos: dict[Path, WeightsInfo] = {}
    for name in (*shipped_weights(), *given):
        with faults.collected():
            path = find_weights(name)
            info = read_info(path)
            if any(task in info.scaling for task in tasks):
                infos[path] = info
            elif name in given:
                raise WeightsError(
                    f"{name}: is for {', '.join(info.scaling)}, not for {', '.join(tasks)}; leave "
                    "it out"
                )
    faults.refuse()
    names = unique_names([path.with_suffix("") for path in infos])
    found = {name: (path, infos[path]) for name, path in zip(names, infos, strict=True)}
    for task in tasks:
        of_task = {name: path for name, (path, info) in found.items() if task in info.scaling}
        if unique_names([path.with_suffix("") for path in of_task.values()]) != list(of_task):
            raise ConfigError(
                f"weights: files of the same name are for other tasks than {task}; rename one of "
                f"{', '.join(path.name for path in of_task.values())}"
            )
    return found


def evaluated(
    definition: Definition,
    sets: Mapping[str, PreparedSet],
    weights: Mapping[str, tuple[Path, WeightsInfo]],
    submissions: Sequence[Submission],
    arguments: argparse.Namespace,
    progress: Progress | None,
) -> Study:
    """Evaluate all methods on the test split, one task after the other, and join the results."""
    studies = []
    for task, prepared in sets.items():
        request = StudyRequest(
            truths=(prepared.folder,),
            restored={s.name: s.folder / task for s in submissions if task in s.tasks},
            weights=tuple(path for path, info in weights.values() if task in info.scaling),
            task=task,
            protocols=definition.protocols,
            measures=definition.measures_of(TASKS[task]),
            split=SPLIT,  # type: ignore[arg-type]
            seed=definition.seed,
            device=arguments.device,
            panels=PANELS,
            command=arguments.command,
        )
        studies.append(evaluate_study(request, progress=progress))
    return joined(studies)


def _seconds(
    arguments: argparse.Namespace,
    sets: Mapping[str, PreparedSet],
    weights: Mapping[str, tuple[Path, WeightsInfo]],
) -> dict[str, dict[str, float]]:
    if not arguments.seconds:
        return {}
    return {
        name: {
            task: seconds_of(path, prepared, arguments.device)
            for task, prepared in sets.items()
            if task in info.scaling
        }
        for name, (path, info) in weights.items()
    }


def _note(arguments: argparse.Namespace) -> str:
    if not arguments.seconds:
        return ""
    import torch

    threads = torch.get_num_threads()
    return (
        f"Seconds on {find_device(arguments.device)}, threads: {threads}; median of 3 runs over "
        "4 slices in the middle of the first stack."
    )


def _check_output(arguments: argparse.Namespace) -> None:
    """Refuse an output folder before anything is computed."""
    inside = Path(os.path.realpath(arguments.output))
    folders = [arguments.data / task for task in TASKS]
    folders += [Path(text.rpartition("=")[2]) for text in arguments.submission]
    for folder in folders:
        if inside.is_relative_to(os.path.realpath(folder)):
            raise InputError(f"{arguments.output}: lies in {folder}, which is read; name another")
    for name in FILES:
        check_writable(arguments.output / name, overwrite=True, make_folders=True)


if __name__ == "__main__":
    sys.exit(main())
