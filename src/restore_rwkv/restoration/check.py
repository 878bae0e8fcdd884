"""What `restore` would do with every scan below a path: nothing is computed or written."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from restore_rwkv.errors import RestoreError
from restore_rwkv.io import FoundScan, Volume, find_scans, recorded_warnings
from restore_rwkv.model import read_info, shipped_weights
from restore_rwkv.restoration.file import of_volume
from restore_rwkv.restoration.fit import Fit, Outcome
from restore_rwkv.restoration.memory import free_memory
from restore_rwkv.restoration.options import RestoreOptions
from restore_rwkv.restoration.plan import Plan
from restore_rwkv.restoration.preview import collected
from restore_rwkv.restoration.restorer import Restorer
from restore_rwkv.restoration.tiles import pixels_of, run
from restore_rwkv.tasks import AUTO

_TIMED, _REPEATS = 128, 4  # side of the slice whose time is taken, and how often


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A scan as `restore` would take it.

    Attributes:
        name: path, and for DICOM the series.
        series: SeriesInstanceUID; None for other formats.
        encoding: suffix of the file, or names of DICOM's transfer syntaxes.
        modality: DICOM's code; None where unknown or unread.
        shape: (X, Y, Z).
        volumes: their number, above 1 for 4-D images.
        spacing: in mm along X, Y, Z; None without geometry.
        unit: of the values.
        task: name of the task that it would be restored for.
        fit: whether it is what weights are for, by their name.
        unjudged: why its values were not compared with the training of weights, by their name;
            empty where they were.
        tile: (rows, columns) of the tiles of a slice; those of the slice where it is not cut.
        memory: bytes that the process would take.
        free: bytes that are free now.
        seconds: that the network would take, from a slice that was timed here.
        warnings: what `restore` would warn of.
        refusals: why it would be refused, with the remedy; empty where it would not.
    """

    name: str
    series: str | None
    encoding: str
    modality: str | None = None
    shape: tuple[int, int, int] | None = None
    volumes: int = 1
    spacing: tuple[float, float, float] | None = None
    unit: str | None = None
    task: str | None = None
    fit: Mapping[str, Outcome] = dataclasses.field(default_factory=dict)
    unjudged: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tile: tuple[int, int] | None = None
    memory: int | None = None
    free: int | None = None
    seconds: float | None = None
    warnings: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()


class Checker:
    """Looks at any number of scans; the weights of each task are read once.

    Args:
        task: as for `Restorer`.
        weights: as for `Restorer`; the fit is told of these only, and else of all shipped weights.
        device: as for `Restorer`.
        options: as for `Restorer.plan`.

    Raises:
        ConfigError: as `Restorer`.
        WeightsError: as `Restorer`.

    Example:
        >>> for scan in Checker().scans("exported-cd"):  # doctest: +SKIP
        ...     print(scan.name, scan.fit, scan.refusals)
    """

    def __init__(
        self,
        task: str = AUTO,
        weights: str | Path | None = None,
        device: str = "auto",
        options: RestoreOptions | None = None,
    ) -> None:
        self._restorer = Restorer(task, weights, device)
        self._options = options or RestoreOptions()
        given = {} if weights is None else {Path(weights).stem: self._restorer}
        self._others = given or {
            name: Restorer(task, path, device)
            for name, path in shipped_weights().items()
            if task in (AUTO, *read_info(path).scaling)
        }
        self._speed: dict[Path, float] = {}  # seconds for a pixel

    def scans(self, path: str | Path) -> Iterator[Checked]:
        """Look at every scan below a path, one after the other.

        Raises:
            InputError: the path does not exist, or is a file of an unknown kind.
        """
        for found in find_scans(path):
            yield self.look(found)

    def look(self, found: FoundScan) -> Checked:
        """Look at one scan, as `restore_rwkv.io.find_scans` gives it."""
        checked = Checked(name=found.name, series=found.series, encoding=found.encoding)
        refusals: list[Exception] = []
        with recorded_warnings() as said, collected(refusals):
            volumes, count = found.read()
            volume = next(volumes)
            checked = dataclasses.replace(
                checked,
                modality=volume.modality,
                shape=volume.data.shape,
                volumes=count,
                spacing=volume.spacing,
                unit=volume.unit,
            )
            checked = self._planned(volume, checked)
            for number, other in enumerate(volumes, start=2):
                with of_volume(number, count):
                    self._restorer.plan(other, self._options)
        told = tuple(dict.fromkeys((*checked.refusals, *map(str, refusals))))
        return dataclasses.replace(
            checked,
            warnings=tuple(text for text in said if not any(text in said_so for said_so in told)),
            refusals=told,
        )

    def _planned(self, volume: Volume, checked: Checked) -> Checked:
        refusals: list[Exception] = []
        plan: Plan | None = None
        with collected(refusals):
            plan = self._restorer.plan(volume, self._options)
        forced = dataclasses.replace(self._options, force=True, strict=False)
        plan = plan or self._restorer.plan(volume, forced)
        fits = self._fits(volume, plan, forced)
        checked = dataclasses.replace(
            checked,
            task=plan.task.name,
            tile=plan.tiling.tile,
            memory=plan.memory,
            free=free_memory(self._restorer.device),
            fit={name: fit.outcome for name, fit in fits.items()},
            unjudged={name: fit.unjudged for name, fit in fits.items() if fit.unjudged},
            refusals=tuple(map(str, refusals)),
        )
        return dataclasses.replace(checked, seconds=checked.volumes * self._seconds(plan))

    def _fits(self, volume: Volume, plan: Plan, options: RestoreOptions) -> dict[str, Fit]:
        """Fit by the name of each weights that serve the task."""
        fits: dict[str, Fit] = {}
        task, planned = plan.task, self._restorer.weights_of(plan.task)
        for name, restorer in self._others.items():
            if not restorer.serves(task):
                continue
            if restorer.weights_of(task) == planned:
                fits[name] = plan.fit
                continue
            try:
                fits[name] = restorer.plan(volume, options).fit
            except RestoreError:  # an option is not for these weights
                continue
        return fits

    def _seconds(self, plan: Plan) -> float:
        """Time of the network, by that of one slice here and now."""
        network = self._restorer.network(plan.task)
        path = self._restorer.weights_of(plan.task)
        level = plan.refinement.noise_level
        if path not in self._speed:
            image = torch.zeros(1, 1, _TIMED, _TIMED)
            times = []
            for _ in range(_REPEATS):  # the first call takes longer, and others may disturb
                start = time.perf_counter()
                run(network, image, (_TIMED, _TIMED), level)
                times.append(time.perf_counter() - start)
            self._speed[path] = min(times) / _TIMED**2
        count, height, width = plan.volume.slices(plan.axis).shape
        pixels = int(count) * pixels_of(plan.tiling.tile, (height, width))
        return pixels * len(plan.refinement.turns) * self._speed[path]
