"""The main job: from a scan on disk or in memory to the restored scan on the same grid."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from restore_rwkv.errors import ConfigError, InputError, WeightsError
from restore_rwkv.io import (
    Volume,
    check_output,
    check_output_path,
    check_record,
    read_volume,
    record_of,
    write_record,
    write_volume,
)
from restore_rwkv.io.files import OutputType
from restore_rwkv.model import load_weights
from restore_rwkv.model.shipped import find_weights
from restore_rwkv.restoration import tiles as inference
from restore_rwkv.restoration.plan import Prepared, prepare
from restore_rwkv.restoration.plan import Settings as Settings
from restore_rwkv.restoration.tiles import Progress
from restore_rwkv.tasks import AUTO, NOTICE, Task, get_task, pick_task
from restore_rwkv.tasks import slice_axis as slice_axis

_logger = logging.getLogger(__name__)


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
        if self.task.name not in self.info.scaling:
            known = " or ".join(self.info.scaling)
            raise WeightsError(
                f"{self.path.name}: trained for {known}, not {task}; "
                f"give other weights or the task {known}"
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
            settings: plane, scaling, memory, and a finer grid.
            progress: called with the number of slices done and the number of all.

        Returns:
            The restored volume: same unit and source, and same grid unless `settings.scale` asks
            for a finer one. An image without negative values has none afterwards; CT has no values
            below -1024 HU where it had none.

        Raises:
            InputError: the volume is of another modality or unit, too small in the plane, or so
                large in value that it overflows.
            ConfigError: the plane needs a geometry, a setting is not for the task, or the memory
                holds no tile.
        """
        return self.restore(volume, settings, progress)[0]

    def restore(
        self,
        volume: Volume,
        settings: Settings | None = None,
        progress: Progress | None = None,
    ) -> tuple[Volume, dict[str, Any]]:
        """As calling the restorer, with a record of what was done: plain values for JSON."""
        start = time.perf_counter()
        settings = settings or Settings()
        prepared = prepare(volume, self.task, self.info.scaling[self.task.name], settings)
        slices = np.ascontiguousarray(np.moveaxis(prepared.volume.data, prepared.axis, 0))
        plan = self._plan(prepared, settings.memory)
        with np.errstate(over="ignore"):  # what overflows is refused below
            image = prepared.scaling.apply(_without_padding(slices, self.task))
        values = torch.from_numpy(image)[:, None]
        values = inference.run(self.network, values, plan, progress)
        output = prepared.scaling.invert(values)[:, 0].numpy()
        if not np.isfinite(output).all():
            raise InputError(
                f"{volume.name}: its values, up to {volume.data.max():g}, overflow in the "
                "network; scale it down"
            )
        _keep_bounds(output, slices, self.task)
        record = prepared.record | {
            "tile": list(plan.tile),
            "batch": plan.batch,
            "seconds": round(time.perf_counter() - start, 3),
        }
        restored = prepared.volume.with_data(np.moveaxis(output, 0, prepared.axis))
        return restored, self._provenance() | record

    def _plan(self, prepared: Prepared, memory: int) -> inference.Plan:
        shape = np.moveaxis(prepared.volume.data, prepared.axis, 0).shape[1:]
        plan = inference.plan(self.network, (shape[0], shape[1]), memory)
        if plan.tile != shape:
            _logger.warning(
                "%s: slices of %d x %d exceed the memory allowed, so they are restored in tiles of "
                "%d x %d, which changes the result slightly; allow more memory to avoid it",
                *(prepared.volume.name, *shape, *plan.tile),
            )
        return plan

    def _provenance(self) -> dict[str, Any]:
        return {
            "notice": NOTICE,
            "not_for": self.task.not_for,
            "torch": torch.__version__,
            "task": self.task.name,
            "weights": self.path.name,
            "weights_sha256": self.info.sha256,
            "device": str(self.device),
        }


def restore(
    source: Path | str,
    output: Path | str,
    *,
    task: str = AUTO,
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
        task: name of the task; "auto" picks it by the modality that the source tells.
        weights: name of shipped weights or a weight file; the task's own where not given.
        device: "auto", "cpu", "cuda" or "mps".
        settings: plane, scaling, memory, and a finer grid.
        dtype: "float32", "source" (the source's type, rounded and clipped) or "auto" (float32
            wherever the format holds it).
        overwrite: replace existing outputs.
        series: which series of a DICOM folder with several: its number or SeriesInstanceUID.
        progress: called with the number of slices done and the number of all.

    Returns:
        The restored volume, as written.

    Raises:
        InputError: the source cannot be read, nothing tells its modality, or the output cannot be
            written.
        ConfigError: an argument is unknown or out of range.
        WeightsError: the weights are missing, damaged, or of another task.

    Example:
        >>> import restore_rwkv
        >>> restore_rwkv.restore("t1.nii.gz", "restored.nii.gz", task="mri-sr")  # doctest: +SKIP
    """
    source, output = Path(source), Path(output)
    check_output_path(output, source=source, overwrite=overwrite)
    record_path = record_of(output)
    check_record(record_path, overwrite=overwrite)
    if task != AUTO:
        get_task(task)
    if weights is not None:
        find_weights(weights)
    find_device(device)
    volume = read_volume(source, series=series)
    check_output(volume, output, dtype=dtype, overwrite=overwrite)
    restorer = Restorer(pick_task(volume, task).name, weights, device)
    restored, record = restorer.restore(volume, settings, progress)
    write_volume(restored, output, dtype=dtype, overwrite=overwrite)
    write_record(record_path, record, source)
    return restored


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


def _without_padding(slices: NDArray[np.float32], task: Task) -> NDArray[np.float32]:
    """Slices for the network: what is below the values of CT would bleed into its surroundings."""
    if task.modality != "CT" or slices.min() >= task.value_range[0]:
        return slices
    return slices.clip(min=task.value_range[0])


def _keep_bounds(output: NDArray[np.float32], slices: NDArray[np.float32], task: Task) -> None:
    """Put back padding, and clip, in place, what the input's values show to be impossible."""
    if task.modality == "CT":
        lowest, air = slices.min(), task.value_range[0]
        np.maximum(output, np.minimum(slices, air), out=output)
        if lowest < air:
            output[slices == lowest] = lowest
    if slices.min() >= 0:
        np.maximum(output, 0, out=output)
