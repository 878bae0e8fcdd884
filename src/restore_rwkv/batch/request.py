"""What a batch is to do, and whether it goes on with one that was begun with other settings."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from restore_rwkv.batch.find import BatchFormat
from restore_rwkv.batch.job import Job, Outcome
from restore_rwkv.batch.manifest import Manifest
from restore_rwkv.batch.worker import WorkerSettings
from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.model import find_weights, read_info
from restore_rwkv.tasks import AUTO, TASKS, get_task

MANIFEST = "manifest.sqlite"
_OF_PARTS = "manifest-*-of-*.sqlite"
# Neither changes an output that is there; the last three decide what is refused or fits in memory.
_WITHOUT_EFFECT = ("threads", "thumbnails", "device", "memory", "force", "strict")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One of several shares of a batch, each on a machine of its own.

    Attributes:
        number: from 1.
        count: of all.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ConfigError(
                f"part {self.number}/{self.count} does not exist; give K/N with K from 1 to N"
            )

    @property
    def manifest(self) -> str:
        """File name of its manifest."""
        return f"manifest-{self.number}-of-{self.count}.sqlite"


@dataclass(frozen=True, kw_only=True)
class BatchRequest:
    """What a batch is to do.

    Attributes:
        output: folder of the outputs and the manifest; missing folders are made.
        settings: how scans are restored.
        format: of the outputs, as for `find_jobs`.
        resume: go on with the batch that this folder holds; what its parts have done is taken over.
        part: the share of it; None for all.
        after: called once a scan is restored and before that is noted in the manifest, such as
            to write a further file beside it; its fault is one of that scan.
        exists: whether an output is there, by its path or URL.
    """

    output: Path
    settings: WorkerSettings
    format: BatchFormat = "auto"
    resume: bool = False
    part: Part | None = None
    after: Callable[[Job, Outcome], None] | None = None
    exists: Callable[[str], bool] = os.path.exists

    @property
    def manifest(self) -> Path:
        """Path of the manifest."""
        return self.output / (MANIFEST if self.part is None else self.part.manifest)

    @property
    def parts(self) -> list[Path]:
        """Paths of the manifests of parts, where this is the whole batch."""
        return [] if self.part is not None else sorted(self.output.glob(_OF_PARTS))

    def check(self) -> None:
        """Check before anything is searched or started that the batch may begin.

        Raises:
            InputError: the folder holds a batch, and `resume` is false.
        """
        if os.path.lexists(self.output) and not self.output.is_dir():
            what = "leads nowhere" if self.output.is_symlink() else "is a file"
            raise InputError(f"{self.output}: {what}; name a folder for the outputs")
        there = [path for path in (self.manifest, *self.parts) if path.exists()]
        if there and not self.resume:
            raise InputError(
                f"{there[0]}: the folder holds a batch already; give resume=True to go on "
                "with it, or name another folder"
            )


def settings_of(request: BatchRequest) -> dict[str, Any]:
    """Settings that decide on the outputs, as JSON has them; of weights their digest."""
    values = dataclasses.asdict(request.settings) | {"format": request.format}
    values |= values.pop("options")
    values["weights"] = _weights(request.settings)
    kept = {name: value for name, value in values.items() if name not in _WITHOUT_EFFECT}
    plain: dict[str, Any] = json.loads(json.dumps(kept))
    return plain


def _weights(settings: WorkerSettings) -> str | dict[str, str]:
    """Digest of the weights; where each task has its own, of those that may be used."""
    if settings.weights is not None:
        return read_info(find_weights(settings.weights)).sha256
    tasks = TASKS.values() if settings.task == AUTO else [get_task(settings.task)]
    return {task.name: read_info(find_weights(task.weights)).sha256 for task in tasks}


def check_settings(manifest: Manifest, settings: Mapping[str, Any]) -> None:
    """Refuse to go on with a batch that was begun with other settings."""
    before = manifest.settings()
    if before is None:
        return
    differing = [name for name in settings if before.get(name) != settings[name]]
    if differing:
        told = " and ".join(_told(name, before.get(name)) for name in differing)
        raise InputError(
            f"{manifest.path}: the batch was begun with {told}; give the same, or name another "
            "folder"
        )


def _told(name: str, value: object) -> str:
    """A setting for people."""
    if value is None:
        return f"no {name}"
    return "other weights" if name == "weights" else f"{name}={value!r}"
