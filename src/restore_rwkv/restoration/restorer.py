"""The main job: from a scan on disk or in memory to the restored scan on the same grid."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from pathlib import Path

import numpy as np

from restore_rwkv.errors import InputError, WeightsError
from restore_rwkv.io import (
    OutputFormat,
    OutputOptions,
    Progress,
    Target,
    Volume,
    as_volume,
    degraded_by,
    record_of,
)
from restore_rwkv.io.outputs import OutputType
from restore_rwkv.model import (
    InferenceNetwork,
    WeightsInfo,
    find_weights,
    load_inference,
    read_info,
)
from restore_rwkv.model.export import ExportedNetwork
from restore_rwkv.restoration.device import device_for
from restore_rwkv.restoration.file import FileRequest, restore_file
from restore_rwkv.restoration.options import RestoreOptions
from restore_rwkv.restoration.plan import Plan
from restore_rwkv.restoration.planning import make_plan
from restore_rwkv.restoration.preview import Preview, preview_file
from restore_rwkv.restoration.recording import Ran, Restored, restoration_record
from restore_rwkv.restoration.slices import restore_slices
from restore_rwkv.restoration.tiles import least_memory
from restore_rwkv.tasks import AUTO, Task, get_task, pick_task

_logger = logging.getLogger(__name__)


class Restorer:
    """Restores any number of scans on one device; weights are read when they are first needed.

    Args:
        task: name of the task, such as "mri-sr"; "auto" takes that of each scan's modality.
        weights: name of shipped weights, a weight file, or an exported network (`.onnx`), which
            ONNX Runtime runs on the CPU; the task's own weights where not given.
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "mps".

    Raises:
        ConfigError: the task or device is unknown, the device is not on this machine or not one for
            an exported network, or a package of the extra `onnx` is needed and not installed.
        WeightsError: the weights are missing, have a damaged record, or are of another task.

    Example:
        >>> restorer = Restorer("mri-sr")  # doctest: +SKIP
        >>> restored = restorer.run(read_volume("t1.nii.gz"))  # doctest: +SKIP
        >>> restored.volume.spacing, restored.record.seconds  # doctest: +SKIP
    """

    def __init__(
        self, task: str = AUTO, weights: str | Path | None = None, device: str = "auto"
    ) -> None:
        self.task = None if task == AUTO else get_task(task)
        self.weights = None if weights is None else find_weights(weights).absolute()
        self.device = device_for(device, self.weights)
        # Read once each, so that a file that is replaced later changes nothing here.
        self._infos: dict[Path, WeightsInfo] = {}
        self._networks: dict[Path, InferenceNetwork] = {}
        self._lock = threading.Lock()
        if self.task is not None:
            self._info(self.task)

    def plan(self, volume: Volume, options: RestoreOptions | None = None) -> Plan:
        """Decide how a volume would be restored; only the record of the weights is read.

        The factor of a volume from a file that `degrade` made is taken from the record beside it.

        Raises:
            InputError: the volume's modality is unknown, it is of another modality or unit, or too
                small in the plane.
            ConfigError: the plane needs a geometry, an option is not for the task, or the memory
                allowed holds no tile.
            WeightsError: the weights are damaged, or of another task.
        """
        volume = as_volume(volume)
        task = self.task or pick_task(volume)
        info = self._info(task)
        asked = options or RestoreOptions()
        used, factor_from = self._with_factor(volume, task, asked)
        plan = make_plan(volume, task, used, info=info, device=self.device)
        return dataclasses.replace(plan, factor_from=factor_from, options=asked)

    def serves(self, task: Task) -> bool:
        """Whether the weights were trained for a task."""
        try:
            self._info(task)
        except WeightsError:
            return False
        return True

    def uses_factor(self, task: Task, options: RestoreOptions) -> bool:
        """Whether the result may depend on `factor`, the reduction of the measurement.

        It does for consistency and ensemble of MRI, for a calibrated strength, and for a network
        that is told the level of the noise.

        Raises:
            WeightsError: the weights are damaged, or of another task.
        """
        info = self._info(task)
        if task.rules.noise_unit is None:
            return task.rules.holds_measurement and (options.consistency != 0 or options.ensemble)
        calibrated = options.strength is None and task.name in info.strength
        return calibrated or info.config.noise_level

    def run(
        self,
        volume: Volume,
        options: RestoreOptions | None = None,
        progress: Progress | None = None,
    ) -> Restored:
        """Restore a volume.

        Args:
            volume: the low-quality scan, in physical units: a `Volume`, or any image that
                `restore_rwkv.io.as_volume` takes.
            options: plane, scaling, memory, a finer grid, consistency, ensemble, and strength.
            progress: called with the number of slices done and the number of all.

        Returns:
            The restored volume: same unit and source, and same grid unless `options.scale` asks
            for a finer one. An image without negative values has none afterwards; CT has no values
            below -1024 HU where it had none. Its record names no source, as `volume` may have been
            changed since it was read; that of `file` does. A notebook shows it as a picture.

        Raises:
            InputError: as `plan`, or the values are so large that they overflow.
            ConfigError: as `plan`, or the machine has less free memory than was allowed.
            WeightsError: as `plan`.
        """
        plan = self.plan(volume, options)
        return dataclasses.replace(self.run_plan(plan, progress), before=plan.volume)

    def file(
        self,
        source: Path | str,
        target: Path | str,
        options: RestoreOptions | None = None,
        *,
        dtype: OutputType = "auto",
        format: OutputFormat = "auto",
        overwrite: bool = False,
        keep_nan: bool = False,
        series: int | str | None = None,
        progress: Progress | None = None,
    ) -> Restored:
        """Restore a scan on disk, and write it with a record of how it was made.

        The record lies beside the output with the suffix .restoration.json. Both appear together or
        not at all, and missing folders are made. All that can be refused is refused before the
        network runs. Each volume of a 4-D NIfTI image is restored on its own; the first one is
        returned.

        Args:
            source: NIfTI, NRRD, MetaImage, MGH, PNG, TIFF or NPY file, or DICOM: a file, a folder,
                a DICOMDIR or a zip archive. Never changed.
            target: file to write, whose suffix chooses the format; or, for DICOM, a new folder for
                a derived series: a name that ends in a slash or has no suffix.
            options: plane, scaling, memory, a finer grid, consistency, ensemble, and strength.
            dtype: "float32", "source" (the source's type, rounded and clipped) or "auto" (float32
                wherever the format holds it).
            format: "dicom" for a derived series in a folder of any name.
            overwrite: replace an existing file; folders are never replaced.
            keep_nan: write NaN where the source has it outside the body, not what filled it.
            series: which series of a DICOM folder with several: its number or SeriesInstanceUID.
            progress: called with the number of slices done and the number of all.

        Raises:
            InputError: as `run`, or the source cannot be read, or the output not be written.
            ConfigError: as `run`.
            WeightsError: as `run`.
        """
        how = OutputOptions(dtype=dtype, format=format, overwrite=overwrite, keep_nan=keep_nan)
        request = FileRequest(
            source=Path(source),
            series=series,
            target=Target.of(target, Path(source), how),
            options=options or RestoreOptions(),
        )
        return restore_file(self, request, progress)

    def preview(
        self,
        source: Path | str,
        target: Path | str,
        options: RestoreOptions | None = None,
        *,
        dtype: OutputType = "auto",
        format: OutputFormat = "auto",
        overwrite: bool = False,
        keep_nan: bool = False,
        series: int | str | None = None,
    ) -> Preview:
        """Say what `file` with the same arguments would do, and everything that it would refuse."""
        how = OutputOptions(dtype=dtype, format=format, overwrite=overwrite, keep_nan=keep_nan)
        options = options or RestoreOptions()
        return preview_file(self, Path(source), series, (target, how), options)

    def run_plan(self, plan: Plan, progress: Progress | None = None) -> Restored:
        """Restore the volume of a plan; arguments and errors are those of `run`."""
        network, info = self.network(plan.task), self._info(plan.task)
        start = time.perf_counter()
        data = np.empty_like(plan.volume.data)
        slices, target = plan.volume.slices(plan.axis), np.moveaxis(data, plan.axis, 0)
        lowest = float(slices.min())
        for first in range(0, len(slices), plan.tiling.batch):
            part = slice(first, first + plan.tiling.batch)
            target[part] = restore_slices(
                *(network, slices[part], plan.task, plan.scaling, plan.tiling.tile),
                lowest,
                plan.refinement,
            )
            if not np.isfinite(target[part]).all():
                raise InputError(
                    f"{plan.volume.name}: its values, up to {plan.volume.data.max():g}, overflow "
                    "in the network; scale it down"
                )
            if progress is not None:
                progress(min(part.stop, len(slices)), len(slices))
        seconds = round(time.perf_counter() - start, 3)
        volume = plan.volume.with_data(data)
        runtime = [network.runtime] if isinstance(network, ExportedNetwork) else []
        where = " ".join([*runtime, str(self.device)])
        ran = Ran(self.weights_of(plan.task).name, info.sha256, where, seconds)
        return Restored(volume, restoration_record(plan, volume, ran))

    def least_memory(self, plan: Plan) -> int:
        """Bytes that the activations of a plan's network would take in its smallest tiles."""
        _, height, width = plan.volume.slices(plan.axis).shape
        info = self._info(plan.task)
        return least_memory(info.config, self.device, (height, width), bool(info.export))

    def _with_factor(
        self, volume: Volume, task: Task, options: RestoreOptions
    ) -> tuple[RestoreOptions, str | None]:
        """Add the factor that the file of a volume was degraded by, and say which record has it."""
        given = options.factor is not None or options.scale is not None
        if given or volume.source is None or not self.uses_factor(task, options):
            return options, None
        factor = degraded_by(volume.source.path, task.name)
        if factor is None:
            return options, None
        record = record_of(volume.source.path, "degradation").name
        _logger.info("%s: factor %g, from %s", volume.name, factor, record)
        return dataclasses.replace(options, factor=factor), record

    def weights_of(self, task: Task) -> Path:
        """Path of the weights that a task is restored with."""
        return self.weights or find_weights(task.weights)

    def _info(self, task: Task) -> WeightsInfo:
        """Return the record of the weights for a task.

        Raises:
            WeightsError: they are damaged, or were trained for other tasks.
        """
        path = self.weights_of(task)
        if path not in self._infos:
            self._infos[path] = read_info(path)
        info = self._infos[path]
        if task.name not in info.scaling:
            known = " or ".join(info.scaling)
            raise WeightsError(
                f"{path.name}: trained for {known}, not {task.name}; "
                f"give other weights=FILE, or task={known}"
            )
        return info

    def network(self, task: Task) -> InferenceNetwork:
        """Return the network for a task, in its inference form and on the restorer's device.

        Raises:
            WeightsError: the weights are damaged, of another task, or changed since they were
                first read.
        """
        path = self.weights_of(task)
        with self._lock:  # threads share one network
            if path not in self._networks:
                network, info = load_inference(path)
                known = self._info(task)
                if (info.sha256, info.export) != (known.sha256, known.export):
                    raise WeightsError(
                        f"{path.name}: has changed since its record was read; make a new Restorer"
                    )
                self._networks[path] = network.to(self.device)
            return self._networks[path]


def restore(
    source: Path | str,
    output: Path | str,
    *,
    task: str = AUTO,
    weights: str | Path | None = None,
    device: str = "auto",
    options: RestoreOptions | None = None,
    dtype: OutputType = "auto",
    format: OutputFormat = "auto",
    overwrite: bool = False,
    keep_nan: bool = False,
    series: int | str | None = None,
    progress: Progress | None = None,
) -> Volume:
    """Restore a scan on disk, and write it with a record of how it was made.

    A short form of `Restorer(task, weights, device).file(source, output, options, ...)`, whose
    documentation has all arguments and errors.

    Returns:
        The restored volume, as written.

    Example:
        >>> import restore_rwkv
        >>> restore_rwkv.restore("t1.nii.gz", "restored.nii.gz", task="mri-sr")  # doctest: +SKIP
    """
    restored = Restorer(task, weights, device).file(
        *(source, output, options),
        dtype=dtype,
        format=format,
        overwrite=overwrite,
        keep_nan=keep_nan,
        series=series,
        progress=progress,
    )
    return restored.volume
