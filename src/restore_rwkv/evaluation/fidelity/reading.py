"""A scan and its restored form, read from files, and whether they belong together."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.evaluation.fidelity.recorded import (
    Recorded,
    find_record,
    given_weights,
    warn_of_another_source,
    weights_of,
)
from restore_rwkv.evaluation.fidelity.report import known_factor, provenance_of
from restore_rwkv.evaluation.fidelity.results import RestoredPair
from restore_rwkv.evaluation.study.pairing import grid_fault, turn_fault, unit_fault
from restore_rwkv.io import DicomSource, Volume, identify, read_volumes
from restore_rwkv.io.record import program_version
from restore_rwkv.model import read_info
from restore_rwkv.options import Seed, Whole, validated
from restore_rwkv.restoration import Restorer, judge
from restore_rwkv.restoration.planning import factor_of_finer, finer
from restore_rwkv.tasks import (
    AUTO,
    AxisFactor,
    PlaneChoice,
    Task,
    get_task,
    pick_task,
    slice_axis,
)
from restore_rwkv.tasks.modality import check_factor, is_signed

_logger = logging.getLogger(__name__)
_SCAN = "the scan"


@validated("fidelity")
@dataclass(frozen=True, kw_only=True)
class FidelityOptions:
    """How a restored image is held against its scan.

    What is not given is taken from the record beside the image where there is one for it.

    Attributes:
        task: what the scan was restored for; "auto" for that of the record, else of its modality.
        weights: name of shipped weights or weight file that the image was restored with; None for
            those of the record, or where it was restored by something else.
        factor: reduction of the measurement, above 1; None for that of the record, else of the
            task (MRI), or to be measured from the noise (CT, PET).
        plane: slices that were restored, as for `RestoreOptions`.
        series: which series of a DICOM folder with several is the scan.
        restored_series: which is the restored image.
        volume: which volume of 4-D images, from 0; None for the first, with a warning.
        force: compare also where unit or orientation seem to differ.
        seed: of the simulated noise.
        command: what the user typed, for the provenance.

    Raises:
        ConfigError: a value is unknown or out of range.
    """

    task: str = AUTO
    weights: str | Path | None = None
    factor: float | None = None
    plane: PlaneChoice = "auto"
    series: int | str | None = None
    restored_series: int | str | None = None
    volume: Whole | None = None
    force: bool = False
    seed: Seed = 0
    command: str = ""

    def __post_init__(self) -> None:
        check_factor(self.factor)


def read_pair(before: Path, after: Path, options: FidelityOptions) -> RestoredPair:
    """Read a scan and its restored form, and check that they belong together.

    Raises:
        As `fidelity_of_files`.
    """
    scan, image = _volumes(before, after, options)
    _require_two(scan, image)
    recorded = find_record(image)
    if recorded is not None:
        warn_of_another_source(scan, recorded)
    task = _task(scan, image, recorded, options.task)
    scan, image = _alike(scan, image, task)
    axis = _axis(scan, task, recorded, options)
    factor = options.factor or (None if recorded is None else recorded.factor)
    factor = known_factor(factor, scan, task)
    if recorded is not None and recorded.scale is not None:
        coarse = scan.slices(axis).shape
        scan = finer(scan, axis, recorded.scale)
        factor = factor_of_finer(scan.slices(axis).shape[1:], coarse[1:])
    _require_comparable(scan, image, force=options.force)
    _check_factor(factor, scan, task, axis)
    pair = RestoredPair(
        before=scan,
        after=image,
        task=task,
        axis=axis,
        factor=factor,
        signed=task.rules.holds_measurement and is_signed(scan),
        tile=_tile(recorded, scan, axis),
        provenance=_provenance(scan, image, recorded, options),
        seed=options.seed,
    )
    return _with_weights(pair, recorded, options)


def _volumes(before: Path, after: Path, options: FidelityOptions) -> tuple[Volume, Volume]:
    """Read both images, of 4-D ones the volume asked for."""
    scans = read_volumes(before, series=options.series)
    images = read_volumes(after, series=options.restored_series)
    count = len(images)
    if len(scans) != count:
        raise InputError(
            f"{after.name}: has {count} volume{'s' * (count > 1)}, {before.name} has {len(scans)}; "
            "give images of the same volumes"
        )
    index = options.volume or 0
    if index >= count:
        raise ConfigError(
            f"volume {index} is not there: {after.name} has {count}; give one from 0 to {count - 1}"
        )
    if count > 1 and options.volume is None:
        _logger.warning(
            "%s: has %d volumes, and the report is about the first; give volume=N for another",
            *(after.name, count),
        )
    return next(islice(scans, index, None)), next(islice(images, index, None))


def _require_two(scan: Volume, image: Volume) -> None:
    """Refuse an image that is held against itself."""
    shared = {path.resolve() for path in _parts(scan)} & {path.resolve() for path in _parts(image)}
    if shared:
        raise InputError(
            f"{image.name}: scan and restored image are both {min(shared).name}; give the scan "
            "that was restored first, then the image that was made of it"
        )


def _parts(volume: Volume) -> tuple[Path, ...]:
    source = volume.source
    if source is None:
        return ()
    return source.files if isinstance(source, DicomSource) else source.parts or (source.path,)


def _task(scan: Volume, image: Volume, recorded: Recorded | None, name: str) -> Task:
    """Task by its name, else of the record, else of the modality of either image."""
    if name != AUTO:
        task = get_task(name)
    elif recorded is not None:
        task = recorded.task
    else:
        task = pick_task(image if scan.modality is None and image.modality else scan)
    for volume in (scan, image):
        if volume.modality not in (None, task.modality):
            raise InputError(
                f"{volume.name}: is {volume.modality}, and {task.name} restores {task.modality}; "
                "give a scan and its restored form, or another task=NAME"
            )
    return task


def _alike(scan: Volume, image: Volume, task: Task) -> tuple[Volume, Volume]:
    """Give both images the unit, modality and SUV that either states.

    Raises:
        InputError: their units differ.
    """
    if None not in (scan.unit, image.unit) and scan.unit != image.unit:
        raise InputError(
            f"{image.name}: is in {image.unit}, {_SCAN} {scan.name} in {scan.unit}; give both in "
            "one unit"
        )
    unit, suv = scan.unit or image.unit, scan.suv_per_unit or image.suv_per_unit
    first, second = (
        dataclasses.replace(volume, unit=unit, modality=task.modality, suv_per_unit=suv)
        for volume in (scan, image)
    )
    return first, second


def _axis(scan: Volume, task: Task, recorded: Recorded | None, options: FidelityOptions) -> int:
    if recorded is not None and options.plane == "auto":
        return recorded.axis
    return slice_axis(scan, task, options.plane)


def _require_comparable(scan: Volume, image: Volume, *, force: bool) -> None:
    """Refuse images that cannot be laid over each other, or seem not to belong together."""
    fault = _axes_fault(image, scan) or grid_fault(image, scan, _SCAN)
    if fault is None and (image.affine is None) != (scan.affine is None):
        fault_of = image if image.affine is None else scan
        _logger.warning(
            "%s: has no geometry, so its voxels are taken to lie as those of the other image",
            fault_of.name,
        )
    if fault is None and not force:
        unit = scan.unit or ""
        fault = unit_fault(image.data, scan.data, unit, _SCAN)
        fault = fault or turn_fault(image.data, scan.data, _SCAN)
    if fault is not None:
        raise InputError(f"{image.name}: {fault}")


def _axes_fault(image: Volume, scan: Volume) -> str | None:
    """Return how the axes of an image run where they run otherwise than those of the scan."""
    from nibabel.orientations import aff2axcodes

    if image.affine is None or scan.affine is None:
        return None
    found, wanted = ("".join(aff2axcodes(volume.affine)) for volume in (image, scan))
    if found == wanted:
        return None
    return (
        f"its axes run to {found}, those of {_SCAN} to {wanted}; store both in one order, as by "
        "converting them with one program"
    )


def _check_factor(factor: AxisFactor | None, scan: Volume, task: Task, axis: int) -> None:
    """Refuse a factor that leaves nothing measured."""
    sides = scan.slices(axis).shape[1:]
    if not task.rules.holds_measurement or isinstance(factor, tuple) or factor is None:
        return
    if factor > min(sides):
        raise ConfigError(
            f"factor {factor:g} leaves no sample of k-space of slices of {sides[0]} x {sides[1]}; "
            f"give at most {min(sides)}"
        )


def _tile(recorded: Recorded | None, scan: Volume, axis: int) -> tuple[int, int] | None:
    if recorded is None or recorded.tile == scan.slices(axis).shape[1:]:
        return None
    return recorded.tile


def _with_weights(
    pair: RestoredPair, recorded: Recorded | None, options: FidelityOptions
) -> RestoredPair:
    """Add what the weights say, where they are known: the fit of the scan, and the calibration."""
    if options.weights is not None:
        path = given_weights(options.weights, recorded)
    else:
        known = None if recorded is None else weights_of(recorded)
        if known is None:
            return pair
        path = known
    Restorer(pair.task.name, path, "cpu")  # refuses weights of another task
    info = read_info(path)
    return dataclasses.replace(
        pair,
        fit=judge(pair.before, pair.task, pair.axis, info.fit.get(pair.task.name)),
        calibration=info.report.get(pair.task.name),
        provenance={**pair.provenance, "weights": path.name, "weights_sha256": info.sha256},
    )


def _provenance(
    scan: Volume, image: Volume, recorded: Recorded | None, options: FidelityOptions
) -> dict[str, object]:
    """Return names and digests of both images, and how the image was made where that is known."""
    made = {} if recorded is None else provenance_of(dict(recorded.values), "")
    names: dict[str, object] = {"command": options.command} if options.command else {}
    for name, volume in (("source", scan), ("output", image)):
        identity = identify(volume)
        if identity is not None:
            names |= {name: identity.source, f"{name}_sha256": identity.source_sha256}
    record = {} if recorded is None else {"record": recorded.path.name}
    return {**made, **names, **record, "reported_by": program_version()}
