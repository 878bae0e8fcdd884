"""The main job: from a scan on disk or in memory to the restored scan on the same grid."""

from __future__ import annotations

import datetime
import hashlib
import json
import logging
import platform
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from restore_rwkv import inference
from restore_rwkv.errors import ConfigError, InputError, WeightsError
from restore_rwkv.inference import Progress
from restore_rwkv.io import (
    Volume,
    acquisition_axis,
    atomic_file,
    check_output,
    check_output_path,
    plane_axis,
    read_volume,
    write_volume,
)
from restore_rwkv.io.files import OutputType
from restore_rwkv.model import NOTICE, load_weights
from restore_rwkv.shipped import find_weights
from restore_rwkv.tasks import get_task

_logger = logging.getLogger(__name__)

Plane = Literal["auto", "axial", "coronal", "sagittal"]
ScalingRule = Literal["auto", "robust", "fixed"]

_MIN_SIDE = 8


@dataclass(frozen=True)
class Settings:
    """How a volume is run through the network.

    Attributes:
        plane: slices to restore: "auto" is the plane of finest spacing, or across the last axis
            where an image has no geometry.
        scaling: "robust" (one factor per volume), "fixed" (the paper's range for the task, for
            data prepared as the paper's), or "auto", as the weights were trained.
        memory: bytes allowed for the network's activations.
    """

    plane: Plane = "auto"
    scaling: ScalingRule = "auto"
    memory: int = 2 << 30

    def __post_init__(self) -> None:
        for name, choices in (
            ("plane", ("auto", "axial", "coronal", "sagittal")),
            ("scaling", ("auto", "robust", "fixed")),
        ):
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"{name} {getattr(self, name)!r} is unknown; use {', '.join(choices)}"
                )


class Restorer:
    """A network made ready for one task on one device; restores any number of volumes.

    Args:
        task: name of the task, such as "mri-sr".
        weights: name of shipped weights or a weight file; the task's own where not given.
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "mps".

    Raises:
        ConfigError: the task or device is unknown, or the device is not on this machine.
        WeightsError: the weights are missing, damaged, or of another task.

    Example:
        >>> restorer = Restorer("mri-sr")  # doctest: +SKIP
        >>> restored = restorer(read_volume("t1.nii.gz"))  # doctest: +SKIP
    """

    def __init__(
        self, task: str = "mri-sr", weights: str | Path | None = None, device: str = "auto"
    ) -> None:
        self.task = get_task(task)
        self.path = find_weights(self.task.weights if weights is None else weights)
        network, self.info = load_weights(self.path)
        if self.info.task != self.task.name:
            raise WeightsError(
                f"{self.path.name}: trained for {self.info.task}, not {task}; "
                f"give other weights or the task {self.info.task}"
            )
        self.device = find_device(device)
        self.network = (network if network.is_merged else network.merged()).to(self.device)

    def __call__(
        self,
        volume: Volume,
        settings: Settings | None = None,
        progress: Progress | None = None,
    ) -> Volume:
        """Restore a volume.

        Args:
            volume: the low-quality scan, in physical units.
            settings: plane, scaling and memory.
            progress: called with the number of slices done and the number of all.

        Returns:
            The restored volume: same grid, unit and source. An image without negative values has
            none afterwards.

        Raises:
            InputError: the volume is of another modality, too small in the plane, or so large in
                value that it overflows.
            ConfigError: the plane needs a geometry, or the memory holds no tile.
        """
        return self.restore(volume, settings, progress)[0]

    def restore(
        self,
        volume: Volume,
        settings: Settings | None = None,
        progress: Progress | None = None,
    ) -> tuple[Volume, dict[str, Any]]:
        """As calling the restorer, with a record of what was done: plain values for JSON."""
        settings = settings or Settings()
        start = time.perf_counter()
        self._check(volume)
        axis = slice_axis(volume, settings.plane)
        slices = np.moveaxis(volume.data, axis, 0)
        _, height, width = slices.shape
        if min(height, width) < _MIN_SIDE:
            raise InputError(
                f"{_name(volume)}: slices are {height} x {width} pixels in this plane; "
                f"choose a plane with at least {_MIN_SIDE} x {_MIN_SIDE}"
            )
        rule = self.info.scaling.get("kind") if settings.scaling == "auto" else settings.scaling
        scaling = self.task.scaling_for(volume.data, rule)
        plan = inference.plan(self.network, (height, width), settings.memory)
        if plan.tile != (height, width):
            _logger.warning(
                "%s: slices of %d x %d exceed the memory allowed, so they are restored in tiles of "
                "%d x %d, which changes the result slightly; allow more memory to avoid it",
                *(_name(volume), height, width, *plan.tile),
            )
        values = scaling.apply(torch.from_numpy(np.ascontiguousarray(slices))[:, None])
        output = scaling.invert(inference.run(self.network, values, plan, progress))[:, 0].numpy()
        if not np.isfinite(output).all():
            raise InputError(
                f"{_name(volume)}: its values, up to {volume.data.max():g}, overflow in the "
                "network; scale it down"
            )
        if volume.data.min() >= 0:
            np.maximum(output, 0, out=output)
        record = {
            "scaling": scaling.to_dict(),
            "slice_axis": axis,
            "tile": list(plan.tile),
            "batch": plan.batch,
            "seconds": round(time.perf_counter() - start, 3),
        }
        return volume.with_data(np.moveaxis(output, 0, axis)), self._provenance() | record

    def _check(self, volume: Volume) -> None:
        if volume.modality not in (None, self.task.modality):
            raise InputError(
                f"{_name(volume)}: is {volume.modality}, and {self.task.name} restores "
                f"{self.task.modality}; choose a task for {volume.modality}"
            )

    def _provenance(self) -> dict[str, Any]:
        return {
            "notice": NOTICE,
            "not_for": self.task.not_for,
            "software": f"restore-rwkv {version('restore-rwkv')}",
            "torch": torch.__version__,
            "python": platform.python_version(),
            "task": self.task.name,
            "weights": self.path.name,
            "weights_sha256": self.info.sha256,
            "device": str(self.device),
        }


def restore(
    source: Path | str,
    output: Path | str,
    *,
    task: str = "mri-sr",
    weights: str | Path | None = None,
    device: str = "auto",
    settings: Settings | None = None,
    dtype: OutputType = "auto",
    overwrite: bool = False,
    series: int | str | None = None,
    progress: Progress | None = None,
) -> Volume:
    """Restore a scan on disk, and write it with a record of how it was made.

    The record lies beside the output with the suffix .restoration.json: versions, weights and
    their hash, scaling, plane, device, and what the image must not be used for.

    Args:
        source: NIfTI, PNG, TIFF or NPY file, or a folder with a DICOM series. Never changed.
        output: file to write; its suffix chooses the format (DICOM becomes NIfTI).
        task: name of the task.
        weights: name of shipped weights or a weight file; the task's own where not given.
        device: "auto", "cpu", "cuda" or "mps".
        settings: plane, scaling and memory.
        dtype: "float32", "source" (the source's type, rounded and clipped) or "auto" (float32
            wherever the format holds it).
        overwrite: replace existing outputs.
        series: which series of a DICOM folder with several: its number or SeriesInstanceUID.
        progress: called with the number of slices done and the number of all.

    Returns:
        The restored volume, as written.

    Raises:
        InputError: the source cannot be read or the output cannot be written.
        ConfigError: an argument is unknown or out of range.
        WeightsError: the weights are missing, damaged, or of another task.

    Example:
        >>> import restore_rwkv
        >>> restore_rwkv.restore("t1.nii.gz", "t1-restored.nii.gz")  # doctest: +SKIP
    """
    source, output = Path(source), Path(output)
    check_output_path(output, source=source, overwrite=overwrite)
    record_path = record_of(output)
    if record_path.exists() and not overwrite:
        raise InputError(
            f"{record_path}: exists already; name another output, or allow overwriting"
        )
    restorer = Restorer(task, weights, device)
    volume = read_volume(source, series=series)
    check_output(volume, output, dtype=dtype, overwrite=overwrite)
    restored, record = restorer.restore(volume, settings, progress)
    record |= {
        "source": source.name,
        "source_sha256": None if source.is_dir() else _sha256(source),
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    write_volume(restored, output, dtype=dtype, overwrite=overwrite)
    with atomic_file(record_path) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return restored


def record_of(output: Path) -> Path:
    """Path of the record beside an output: scan.nii.gz has scan.restoration.json.

    Not scan.json, which BIDS gives a meaning of its own.
    """
    inner = output.with_suffix("") if output.suffix.lower() == ".gz" else output
    return inner.with_suffix(".restoration.json")


def find_device(name: str) -> torch.device:
    """Device of that name; "auto" is the fastest one here.

    Raises:
        ConfigError: the name is unknown, or this machine has no such device.
    """
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(device for device, here in present.items() if here)
    kind = name.split(":")[0]
    if kind not in present:
        raise ConfigError(f"device {name!r} is unknown; use auto, {', '.join(present)}")
    if not present[kind]:
        raise ConfigError(f"device {name!r} is not on this machine; use cpu or auto")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {name!r} is no device of torch; use auto or cpu") from error


def slice_axis(volume: Volume, plane: Plane = "auto") -> int:
    """Array axis across the slices of a plane: "auto" as in `Settings`.

    Raises:
        ConfigError: an anatomical plane is asked of an image without geometry.
    """
    if plane != "auto":
        if volume.affine is None:
            raise ConfigError(
                f"plane {plane}: {_name(volume)} has no geometry; leave plane at auto, which takes "
                "slices across the last axis"
            )
        return plane_axis(volume.affine, plane)
    if volume.spacing is None or volume.data.shape[2] == 1:
        return 2
    return acquisition_axis(volume.spacing)


def _name(volume: Volume) -> str:
    return volume.source.path.name if volume.source else "array"


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()
