"""What the page is told of the package: tasks, weights and the sample, as plain JSON values."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from restore_rwkv.apps.page.demo import NAME as SAMPLE
from restore_rwkv.io.record import program_version
from restore_rwkv.model import read_info
from restore_rwkv.physics.pet import PETScanner
from restore_rwkv.tasks import TASKS
from restore_rwkv.tasks.table import NOTICE, Task
from web.runtime import VERSION

MODELS = "models"
"""Folder of the exported networks in the page."""


def about(networks: Mapping[str, Path], *, webgpu: bool) -> dict[str, Any]:
    """Return what `about.json` holds.

    Args:
        networks: exported networks by the names of their weights.
        webgpu: whether the page has the runtime for WebGPU.
    """
    weights = {name: _weights(name, path) for name, path in networks.items()}
    served = {task for entry in weights.values() for task in entry["scaling"]}
    return {
        "version": version("restore-rwkv"),
        "notice": NOTICE,
        "said": {"notice": NOTICE, "software": program_version(), "runtime": VERSION},
        "webgpu": webgpu,
        "tasks": {name: _task(task) for name, task in TASKS.items() if name in served},
        "weights": weights,
        "sample": {
            "file": f"sample/{SAMPLE}",
            "name": SAMPLE,
            "task": "mri-sr",
            "text": "Brain MRI with contrast, of which a quarter of k-space per axis was kept "
            "(sample/README.md says where it is from).",
        },
    }


def _task(task: Task) -> dict[str, Any]:
    rules = task.rules
    limits = [limit if math.isfinite(limit) else None for limit in rules.value_limits]
    names = ("name", "title", "modality", "unit", "plane", "factor", "weights", "not_for")
    return {
        **{name: getattr(task, name) for name in names},
        "consistency": task.consistency,
        "value_range": task.value_range,
        "rules": {
            "title": rules.title,
            "noise_unit": rules.noise_unit,
            "holds_measurement": rules.holds_measurement,
            "value_limits": limits,
            "measures": {
                name: dataclasses.asdict(measure) for name, measure in rules.measures.items()
            },
            "pixel": PETScanner().pixel if task.modality == "PT" else None,
        },
    }


def _weights(name: str, path: Path) -> dict[str, Any]:
    info = read_info(path)
    return {
        "name": name,
        "file": f"{MODELS}/{name}.onnx",
        "file_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "sha256": info.sha256,
        "noise_level": info.config.noise_level,
        "scaling": {task: rule.to_dict() for task, rule in info.scaling.items()},
        "strength": {task: strength.to_dict() for task, strength in info.strength.items()},
        "fit": {task: dict(ranges) for task, ranges in info.fit.items()},
    }
