"""The record beside an output: what was read, what was done with it, by which software.

Records are plain dataclasses that become flat JSON. `FORMAT` changes when a field changes its
meaning; fields may be added without.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import hashlib
import json
import math
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from restore_rwkv.errors import InputError
from restore_rwkv.io.dicom.read import DicomSource
from restore_rwkv.io.findings import Finding
from restore_rwkv.io.volume import Volume

FORMAT = "restore-rwkv record 1"
RECORD_SUFFIX = ".restoration.json"

_CHUNK = 1 << 22


@functools.cache  # reads a file
def program_version() -> str:
    """Name and version of this program, as records have them."""
    return f"restore-rwkv {version('restore-rwkv')}"


@dataclass(frozen=True, kw_only=True)
class SourceRecord:
    """Identity of an input.

    Attributes:
        source: name of the file or folder, without its path.
        source_sha256: digest of the file; of a series or a pair of files, of the digests of its
            files in the order of their names.
        source_files: digest of each file that was read, by its name below their common folder.
        series_number: SeriesNumber of the series that was taken; None for other formats.
        series_instance_uid: SeriesInstanceUID of that series.
        sop_instance_uids: SOPInstanceUID of each file that was read, in the order of the slices; a
            multi-frame file has one for all of them.
    """

    source: str
    source_sha256: str
    source_files: Mapping[str, str]
    series_number: str | None = None
    series_instance_uid: str | None = None
    sop_instance_uids: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class OutputRecord:
    """Identity of an output.

    Attributes:
        output: name of the file or folder, without its path.
        output_sha256: digest of the file; of a series, of the digests of its files in the order of
            their names.
        output_files: digest of each file that was written, by its name.
        output_series_instance_uid: SeriesInstanceUID of a series that was written; None for other
            formats.
        clipped_voxels: number of voxels whose value the format could not hold.
        dtype: type of its values that was asked for, as for `Restorer.file`; None where it was not
            noted.
        keep_nan: whether NaN was asked for where the input had it; None likewise.
    """

    output: str
    output_sha256: str
    output_files: Mapping[str, str]
    output_series_instance_uid: str | None = None
    clipped_voxels: int = 0
    dtype: str | None = None
    keep_nan: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Record:
    """Common part of all records: who wrote it, when, from which input, and to which output.

    Attributes:
        notice: that the program is not a medical device.
        modality: DICOM's code of the image; None where unknown.
        unit: of its values; None where unknown.
        software: this program with its version.
        python: version of Python.
        created: time in UTC, ISO 8601.
        warnings: what was warned of, in the order of time.
        source: identity of the input; None for an array.
        output: identity of the output; None where nothing was written.
    """

    notice: str
    modality: str | None
    unit: str | None
    software: str = field(default_factory=program_version)
    python: str = field(default_factory=platform.python_version)
    created: str = field(default_factory=lambda: _now())
    warnings: tuple[str, ...] = ()
    source: SourceRecord | None = None
    output: OutputRecord | None = None


@dataclass(frozen=True, kw_only=True)
class FitRecord:
    """Whether the input is an image that the weights are for.

    Attributes:
        outcome: "fit", "doubtful" or "unfit".
        findings: what speaks against restoring it.
        measures: what was measured in the image for this, by name.
        unjudged: why its measures were not compared with the training; None where they were.
        forced: whether the user asked to go on although it is unfit.
    """

    outcome: Literal["fit", "doubtful", "unfit"]
    findings: tuple[Finding, ...]
    measures: Mapping[str, float]
    unjudged: str | None
    forced: bool


@dataclass(frozen=True, kw_only=True)
class ChangeRecord:
    """How a restored image differs from what the network was given.

    Attributes:
        mean: mean of restored minus input, in the unit of the image.
        largest: largest absolute difference, in the unit of the image.
        noise_before: CT, PET: noise of the input as `Modality.noise_of` measures it; None where
            that is not possible.
        noise_after: the same of the restored image.
        shift: CT: mean of restored minus input in HU in "air", "water" (soft tissue without fat)
            and "bone"; None for a tissue that is hardly there.
    """

    mean: float
    largest: float
    noise_before: float | None
    noise_after: float | None
    shift: Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class VolumeRecord:
    """What differs between the volumes of a 4-D image; fields as in `RestorationRecord`.

    Attributes:
        scaling: of its values.
        strength: of its correction.
        noise_found: in it.
        noise_level: that the network was told.
        fit: its outcome.
        change: by its restoration.
    """

    scaling: Mapping[str, float]
    strength: float
    noise_found: float | None
    noise_level: float | None
    fit: Literal["fit", "doubtful", "unfit"]
    change: ChangeRecord


@dataclass(frozen=True, kw_only=True)
class RestorationRecord(Record):
    """How a restored image was made.

    Attributes:
        not_for: what the image must not be used for.
        task: name of the task.
        weights: file name of the weights.
        weights_sha256: digest of their tensors.
        device: where the network ran, such as "cuda:0".
        slice_axis: array axis across the slices that were restored.
        scale: factor of the finer grid; None where the grid was kept.
        scaling: "offset" and "scale" of physical values onto network values.
        scaling_rule: how that scaling was found, "fixed" or "robust".
        suv_per_unit: PET: SUV of a value of 1 where it was used.
        no_suv: PET: why no SUV was used.
        tile: (rows, columns) of a tile; those of a slice where it was not cut.
        batch: slices that ran together.
        consistency: steps that put measured data back into the restored slices; 0 for none.
        kept: (rows, columns) of the block of k-space that they kept; None for none.
        signed: MRI: whether the scan was taken for signed, not for a magnitude, in these steps.
        ensemble: whether the image is the mean over turns and mirrors of its slices.
        turns: their number; 1 for none.
        strength: part of the correction that was applied, 0 to 1.
        noise_found: noise of the scan that the strength follows from; None where not measured.
        noise_reference: noise of a scan of full quality that it was compared with.
        factor: reduction of the measurement that was used: how many times less dose, or the full
            over the measured extent of k-space, one number or one for each axis of a slice; None
            where noise was compared or it does not matter.
        factor_from: file name of the record of `degrade` that gave it; None where there was none.
        no_noise: why the noise was not compared, so that `factor` is that of the task.
        noise_level: level of the noise to remove that the network was told (`AddedNoise.level`);
            None for a network that is not told.
        fit: whether the input is what the weights are for.
        change: how the output differs from the input.
        seconds: from the values of the scan to the restored values.
        torch: version of PyTorch.
        volumes: number of volumes of a 4-D image; `seconds`, `fit` and `change` are then those of
            all, the worst, and their mean and largest.
        each_volume: of a 4-D image, what was found for each; the fields above are of the first.
        options: what was asked for, by the names of `RestoreOptions`.
        fidelity: figures, maps and places of the report, of a 4-D image those of the first
            volume, and the digest of each file beside the image; None without a report.
    """

    not_for: str
    task: str
    weights: str
    weights_sha256: str
    device: str
    slice_axis: int
    scale: float | None
    scaling: Mapping[str, float]
    scaling_rule: str
    suv_per_unit: float | None
    no_suv: str | None
    tile: tuple[int, int]
    batch: int
    consistency: int
    kept: tuple[int, int] | None
    signed: bool
    ensemble: bool
    turns: int
    strength: float
    noise_found: float | None
    noise_reference: float | None
    factor: float | tuple[float, float] | None
    factor_from: str | None
    no_noise: str | None
    noise_level: float | None
    fit: FitRecord
    change: ChangeRecord
    seconds: float
    torch: str
    volumes: int = 1
    each_volume: tuple[VolumeRecord, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    fidelity: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class DegradationRecord(Record):
    """How a low-quality image was simulated.

    Attributes:
        made: task, factor, seed and parameters of the physics, as plain JSON values.
    """

    made: Mapping[str, Any]


def identify(volume: Volume) -> SourceRecord | None:
    """Hash the files that a volume was read from; None for an array.

    Raises:
        OSError: a file cannot be read any more.
    """
    source = volume.source
    if source is None:
        return None
    if not isinstance(source, DicomSource):
        digests = {path.name: file_sha256(path) for path in source.parts or (source.path,)}
        one = digests.get(source.path.name) if len(digests) == 1 else None
        return SourceRecord(
            source=source.path.name,
            source_sha256=one or joint_sha256(digests),
            source_files=digests,
        )
    below = Path(os.path.commonpath([path.parent for path in source.files]))  # of several folders
    digests = {path.relative_to(below).as_posix(): file_sha256(path) for path in source.files}
    return SourceRecord(
        source=source.path.name,
        source_sha256=joint_sha256(digests),
        source_files=digests,
        series_number=source.series_number,
        series_instance_uid=source.series_instance_uid,
        sop_instance_uids=source.sop_instance_uids,
    )


def identify_output(path: Path, name: str) -> OutputRecord:
    """Hash an output.

    Args:
        path: where it lies now: a file, or the folder of a DICOM series.
        name: its final name.

    Raises:
        OSError: a file cannot be read.
    """
    if not path.is_dir():
        digest = file_sha256(path)
        return OutputRecord(output=name, output_sha256=digest, output_files={name: digest})
    digests = {file.name: file_sha256(file) for file in sorted(path.glob("*.dcm"))}
    return OutputRecord(output=name, output_sha256=joint_sha256(digests), output_files=digests)


def record_of(output: Path, kind: Literal["restoration", "degradation"] = "restoration") -> Path:
    """Path of the record beside an output: scan.restoration.json for scan.nii.gz.

    Not scan.json, which has another meaning in BIDS.
    """
    inner = output.with_suffix("") if output.suffix.lower() == ".gz" else output
    return inner.with_suffix(f".{kind}.json")


def record_of_series(folder: Path) -> Path:
    """Path of the record beside the folder of a DICOM series: ct.restoration.json for ct.

    Not in the folder: programs that send folders to an archive stop at a file that is not DICOM.
    """
    return folder.with_name(f"{folder.name}{RECORD_SUFFIX}")


def check_record(path: Path, output: Path, *, overwrite: bool) -> None:
    """Check that a record may be written.

    Args:
        path: of the record.
        output: what it will be the record of.
        overwrite: whether a record of the same output may be replaced.

    Raises:
        InputError: it exists, and `overwrite` is false, or it is not a file, or the record of
            another output that exists.
    """
    if not os.path.lexists(path):
        return
    if not path.is_file():
        raise InputError(
            f"{path}: exists and is not a file, so no record can go there; name another output"
        )
    if not overwrite:
        raise InputError(f"{path}: exists already; name another output, or give overwrite=True")
    try:
        other = json.loads(path.read_text(encoding="utf-8")).get("output")
    except (OSError, ValueError, AttributeError):
        return
    if isinstance(other, str) and other != output.name and (path.parent / other).exists():
        raise InputError(f"{path}: is the record of {other}; give the output a stem of its own")


def record_text(record: Record) -> str:
    """Return a record as the text of its file."""
    return json.dumps(record_values(record), indent=2) + "\n"


def degraded_by(path: Path, task: str) -> float | None:
    """Return the factor that a file was degraded by, from the record beside it.

    Args:
        path: file of a scan.
        task: name of the task that it was degraded for.

    Returns:
        The factor, above 1; None without a record of `degrade` for that task and this very file.
    """
    if not path.is_file():
        return None
    try:
        values = json.loads(record_of(path, "degradation").read_text(encoding="utf-8"))
        known = values["format"] == FORMAT and values["task"] == task
        known = known and values["output_sha256"] == file_sha256(path)
        factor = float(values["factor"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return factor if known and 1 < factor < math.inf else None


def record_values(record: Record) -> dict[str, Any]:
    """Return a record as flat, plain JSON values.

    The fields of `source`, `output` and `made` stand beside the others; a field without a value is
    None.
    """
    values = dataclasses.asdict(record)
    made = values.pop("made", {})
    for name, kind in (("source", SourceRecord), ("output", OutputRecord)):
        unknown = dict.fromkeys(field.name for field in dataclasses.fields(kind))
        made |= values.pop(name) or unknown
    return {"format": FORMAT, **values, **made}


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()


def joint_sha256(digests: Mapping[str, str]) -> str:
    """SHA-256 of the digests of several files, by name, in the order of their names; hex."""
    in_order = "".join(digests[name] for name in sorted(digests))
    return hashlib.sha256(in_order.encode()).hexdigest()


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
