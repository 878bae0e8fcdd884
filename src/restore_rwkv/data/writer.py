"""Writing of prepared sets, which appear complete or not at all."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from restore_rwkv.data.prepared import FORMAT, MANIFEST, require_no_leak
from restore_rwkv.data.stack import Quality, Split, Stack
from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.io import atomic_folder
from restore_rwkv.io.record import file_sha256
from restore_rwkv.tasks import get_task, robust_scaling

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_INT16 = 2**15


class SetWriter:
    """Writes a prepared set into a folder that must not exist yet.

    Stacks are collected in a hidden folder beside it, which gets the name when the block ends
    without an error and is removed otherwise (see `atomic_folder`).

    Args:
        folder: folder to create; missing parents are created too.
        dataset: name of the source, such as "ixi".
        task: name of the task.
        factor: factor of the degradation; None for that of the task.

    Attributes:
        record: options of the preparation and the volumes left out, plain JSON values for the
            manifest; for `shared_patients` see `PreparedSet`.

    Raises:
        InputError: the folder exists.
        ConfigError: the task is unknown.

    Example:
        >>> with SetWriter(Path("data/mine"), "mine", "ct-denoise") as writer:  # doctest: +SKIP
        ...     writer.add("a", "a", "train", high, low, spacing=(3.0, 0.7, 0.7))
    """

    def __init__(
        self, folder: Path | str, dataset: str, task: str, factor: float | None = None
    ) -> None:
        self.folder = Path(folder).absolute()
        self.dataset = dataset
        self.task = get_task(task)
        self.factor = self.task.factor if factor is None else factor
        self.stacks: list[Stack] = []
        self.record: dict[str, Any] = {}
        self._whole_folder = atomic_folder(folder)
        self._block = ExitStack()

    def __enter__(self) -> SetWriter:
        self._partial = self._block.enter_context(self._whole_folder)
        self._block.push(self._finish)  # runs before the folder is renamed
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._block.__exit__(kind, error, trace)

    def add(
        self,
        name: str,
        patient: str,
        split: Split,
        high: NDArray[Any],
        low: NDArray[Any] | None = None,
        *,
        spacing: tuple[float, float, float] | None = None,
        origin: Mapping[str, Any] | None = None,
    ) -> None:
        """Write one stack.

        Args:
            name: unique in the set; letters, digits and . _ + -.
            patient: identifier of the patient.
            split: "train", "validation" or "test".
            high: (N, H, W), real, physical units of the task.
            low: the same slices at low quality; None to degrade MRI when the set is read.
            spacing: mm between slices, rows and columns.
            origin: source of the volume and record of its degradation, as plain JSON values.

        Raises:
            InputError: the name is taken or invalid, shapes differ, values are not finite, or
                `low` is missing for a task with random physics.
        """
        self._check(name, split, high, low)
        given = {"high": high} if low is None else {"high": high, "low": low}
        (self._partial / split).mkdir(exist_ok=True)
        files = {quality: f"{split}/{name}.{quality}.npy" for quality in given}
        for quality, images in given.items():
            _save(self._partial / files[quality], images)
        if low is not None:
            poor = np.load(self._partial / files["low"], "r")
        else:
            degrade = self.task.rules.degrade_slice
            poor = np.stack([degrade(image.astype(np.float32), self.factor) for image in high])
        self.stacks.append(
            Stack(
                name=name,
                patient=patient,
                split=split,
                shape=(high.shape[0], high.shape[1], high.shape[2]),
                spacing=spacing,
                robust_scale=robust_scaling(poor).scale,
                files=files,
                sha256={q: file_sha256(self._partial / path) for q, path in files.items()},
                origin=dict(origin or {}),
            )
        )

    def _check(self, name: str, split: Split, high: NDArray[Any], low: NDArray[Any] | None) -> None:
        require_name(name)
        # File systems may ignore case.
        if any(stack.name.casefold() == name.casefold() for stack in self.stacks):
            raise InputError(f"{name}: a stack of that name exists already; rename one")
        if split not in get_args(Split):
            raise InputError(f"{name}: split is {split!r}; give {', '.join(get_args(Split))}")
        if high.ndim != 3 or high.size == 0 or (low is not None and low.shape != high.shape):
            given = None if low is None else low.shape
            raise InputError(f"{name}: high is {high.shape} and low {given}; give equal (N, H, W)")
        if low is None and self.task.rules.stored_pairs:
            raise InputError(f"{name}: low quality is missing; {self.task.name} needs pairs")
        qualities: dict[Quality, NDArray[Any] | None] = {"high": high, "low": low}
        for quality, images in qualities.items():
            if images is None:
                continue
            if images.dtype.kind not in "iuf":
                raise InputError(f"{name}: {quality} is {images.dtype}; give real numbers")
            if not all(np.isfinite(image).all() for image in images):
                raise InputError(f"{name}: {quality} has voxels that are not finite; replace them")

    def _finish(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Check the complete set and write its manifest, unless the block has failed."""
        if kind is not None:
            return
        if not any(stack.split in ("train", "test") for stack in self.stacks):
            raise ConfigError(f"{self.folder.name}: no volume for training or test; add some")
        splits = ((stack.patient, stack.split) for stack in self.stacks)
        require_no_leak(splits, self.record.get("shared_patients", {}))
        (self._partial / MANIFEST).write_text(self._manifest(), encoding="utf-8")

    def _manifest(self) -> str:
        content = {
            "format": FORMAT,
            "dataset": self.dataset,
            "task": self.task.name,
            "unit": self.task.unit,
            "factor": self.factor,
            "record": self.record,
            "stacks": [dataclasses.asdict(stack) for stack in self.stacks],
        }
        return json.dumps(content, indent=1, allow_nan=False) + "\n"


def require_name(name: str) -> None:
    """Check that the name of a stack is a portable file name.

    Raises:
        InputError: the name has characters other than letters, digits and . _ + -.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r}: not a valid name of a stack; use letters, digits and . _ + -")


def _save(path: Path, images: NDArray[Any]) -> None:
    """Write (N, H, W) slice by slice, as int16 where that is lossless, otherwise as float32."""
    dtype = np.int16 if all(_is_int16(image) for image in images) else np.float32
    header = {"descr": np.dtype(dtype).newbyteorder("<").str, "fortran_order": False}
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header | {"shape": images.shape})
        for image in images:
            stream.write(image.astype(np.dtype(dtype).newbyteorder("<")).tobytes())


def _is_int16(image: NDArray[Any]) -> bool:
    if image.dtype == np.int16:
        return True
    if image.min() < -_INT16 or image.max() >= _INT16:
        return False
    return image.dtype.kind != "f" or bool(np.array_equal(np.rint(image), image))
