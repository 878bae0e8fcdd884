"""Which weights restore which scans of an evaluation, and under which names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from restore_rwkv.errors import ConfigError, WeightsError
from restore_rwkv.evaluation.study.faults import FaultList
from restore_rwkv.evaluation.study.naming import is_path_inside, unique_names
from restore_rwkv.evaluation.study.request import StudyRequest
from restore_rwkv.evaluation.study.results import INPUT
from restore_rwkv.evaluation.study.sources import TRUTH, Case
from restore_rwkv.model import find_weights
from restore_rwkv.restoration import Restorer
from restore_rwkv.tasks import Task

CUBIC = "cubic"
_RESERVED = (INPUT, CUBIC, TRUTH)


@dataclass(frozen=True, eq=False)
class Methods:
    """Restorers by task and by name of the method, and the names of all methods.

    Attributes:
        names: of the folders of restored images, then of the weights.
        restorers: by name of the task and of the method.
    """

    names: tuple[str, ...]
    restorers: Mapping[str, Mapping[str, Restorer]]


def find_methods(request: StudyRequest, cases: Sequence[Case], faults: FaultList) -> Methods:
    """Return the restorers of an evaluation, whose weights exist and are for its tasks.

    Args:
        request: what is scored.
        cases: its scans.
        faults: receives weights that are missing, damaged, or for none of the tasks, and tasks that
            none of the weights is for.

    Raises:
        ConfigError: two methods have the same name, or one has that of other images; there are
            weights, but no low-quality images; or the device is unknown.
    """
    tasks = list({case.task.name: case.task for case in cases}.values())
    lacking = request.from_files and request.low is None
    if request.weights and lacking and not all(case.stack for case in cases):
        raise ConfigError("weights: they need low-quality images; give low=FOLDER too")
    given = _weights(request, tasks, faults)
    names = (*request.restored, *given)
    for name in names:
        if name in _RESERVED or names.count(name) > 1 or not is_path_inside(name):
            raise ConfigError(
                f"method {name!r}: this name cannot be used; rename the weight file or the folder, "
                "or give restored='NAME=FOLDER'"
            )
    restorers: dict[str, dict[str, Restorer]] = {task.name: {} for task in tasks}
    for name, (path, wanted) in given.items():
        of_any = Restorer(weights=path, device=request.device)
        for task in [task for task in wanted if of_any.serves(task)] or wanted[:1]:
            with faults.collected():
                restorers[task.name][name] = Restorer(task.name, path, request.device)
    if request.weights and not faults.errors:
        for task_name, found in restorers.items():
            if not found and not request.restored:
                faults.errors.append(
                    WeightsError(f"weights: none is for {task_name}; give its weights=FILE too")
                )
    return Methods(names, restorers)


def _weights(
    request: StudyRequest, tasks: Sequence[Task], faults: FaultList
) -> dict[str, tuple[Path, list[Task]]]:
    """Return weight files by name of the method, and the tasks that each is wanted for."""
    if request.weights:
        paths = []
        for weights in dict.fromkeys(request.weights):
            with faults.collected():
                paths.append(find_weights(weights))
        names = unique_names([path.with_suffix("") for path in paths])
        return {name: (path, list(tasks)) for name, path in zip(names, paths, strict=True)}
    found: dict[str, tuple[Path, list[Task]]] = {}
    for task in [] if request.from_files else tasks:
        with faults.collected():
            found.setdefault(task.weights, (find_weights(task.weights), []))[1].append(task)
    return found
