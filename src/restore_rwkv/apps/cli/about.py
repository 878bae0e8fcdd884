"""The facts that `restore-rwkv info` lists: tasks, weights, operator backends and devices.

Nothing here imports PyTorch or NumPy, so that the command answers at once.
"""

from __future__ import annotations

import dataclasses
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from restore_rwkv.apps.cli.console import plain_table, yes_no
from restore_rwkv.model.header import read_header
from restore_rwkv.model.shipped import shipped_weights
from restore_rwkv.ops.machine import available_backends, devices
from restore_rwkv.tasks.table import TASKS

if TYPE_CHECKING:
    from rich.table import Table


def about() -> dict[str, Any]:
    """Tasks, shipped weights, backends and devices, as plain values for JSON."""
    weights = {}
    for name, path in shipped_weights().items():
        header = read_header(path)
        weights[name] = {
            "tasks": list(header.record["scaling"]),
            "parameters": header.parameters,
            "sha256": header.record["sha256"],
        }
    return {
        "version": version("restore-rwkv"),
        "tasks": {
            task.name: {"title": task.title, "modality": task.modality, "weights": task.weights}
            for task in TASKS.values()
        },
        "weights": weights,
        "backends": available_backends(),
        "devices": [dataclasses.asdict(device) for device in devices()],
    }


def about_tables(facts: dict[str, Any]) -> tuple[Table, Table, Table]:
    """The same as tables: of tasks, of weights, and of the machine."""
    tasks = plain_table("task", "what it does", "modality", "weights")
    for name, task in facts["tasks"].items():
        tasks.add_row(name, task["title"], task["modality"], task["weights"])
    weights = plain_table("weights", "tasks", "parameters", "SHA-256")
    for name, file in facts["weights"].items():
        weights.add_row(
            name, ", ".join(file["tasks"]), f"{file['parameters']:,}", file["sha256"][:16]
        )
    machine = plain_table("backend or device", "here")
    for name, present in facts["backends"].items():
        machine.add_row(f"backend {name}", yes_no(present))
    for device in facts["devices"]:
        threads = f", {device['threads']} threads" if device["threads"] else ""
        machine.add_row(f"device {device['name']}", yes_no(device["count"] > 0) + threads)
    return tasks, weights, machine
