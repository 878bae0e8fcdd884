"""What the page says of itself and of this machine; found without importing PyTorch."""

from __future__ import annotations

import functools
from importlib.metadata import version
from typing import Any

from restore_rwkv.apps.page.settings import PageSettings
from restore_rwkv.errors import ConfigError
from restore_rwkv.io.html import plain
from restore_rwkv.model.header import read_header
from restore_rwkv.model.shipped import shipped_weights
from restore_rwkv.ops.machine import devices
from restore_rwkv.tasks.table import NOTICE, TASKS, get_task


class Facts:
    """Version, device, tasks and weights.

    Args:
        settings: of the page.
    """

    def __init__(self, settings: PageSettings) -> None:
        self._settings = settings

    @functools.cached_property
    def weights(self) -> dict[str, list[str]]:
        """Names of the shipped weights that serve each task, its own first."""
        tasks_of = {
            name: read_header(path).record["scaling"] for name, path in shipped_weights().items()
        }
        return {
            task.name: sorted(
                (name for name, tasks in tasks_of.items() if task.name in tasks),
                key=lambda name, own=task.weights: (name != own, name),  # type: ignore[misc]
            )
            for task in TASKS.values()
        }

    def values(self) -> dict[str, Any]:
        """Return them as plain JSON values, as the interface has them."""
        return self._lasting | {"upload_cap": self._settings.upload_cap}

    @functools.cached_property
    def _lasting(self) -> dict[str, Any]:
        here = [device for device in devices() if device.count]
        fastest = next(
            (name for name in ("cuda", "mps") if name in [device.name for device in here]), "cpu"
        )
        path, asked = self._settings.path, self._settings.device
        return {
            "version": version("restore-rwkv"),
            "notice": NOTICE,
            "device": {
                "name": fastest if asked == "auto" else asked,
                "choices": ["auto", *(device.name for device in here)],
                "threads": next(device.threads for device in here if device.name == "cpu"),
            },
            "tasks": [
                {
                    "name": task.name,
                    "title": task.title,
                    "modality": task.modality,
                    "unit": task.unit,
                    "weights": self.weights[task.name],
                }
                for task in TASKS.values()
            ],
            "folder": None if path is None else plain(path.absolute().name),
        }

    def check(self, task: str, weights: str | None) -> None:
        """Refuse a task or weights that the page does not offer; no path is taken for weights.

        Raises:
            ConfigError: the task is unknown, or the weights are not among those of the task.
        """
        offered = self.weights[get_task(task).name]
        if weights is not None and weights not in offered:
            raise ConfigError(f"weights: are not for {task}; choose from {', '.join(offered)}")
