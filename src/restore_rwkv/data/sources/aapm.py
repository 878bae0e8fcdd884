"""AAPM/Mayo low-dose CT grand challenge: DICOM series at full and at reduced dose."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from restore_rwkv.data.prepared import PreparedSet
from restore_rwkv.data.slices import slices_across
from restore_rwkv.data.sources.jobs import (
    Faults,
    Job,
    Preparation,
    Slices,
    folders_with_files,
    require_source,
    write_jobs,
    writers,
)
from restore_rwkv.data.stack import Split
from restore_rwkv.data.writer import SetWriter
from restore_rwkv.errors import InputError
from restore_rwkv.io import Progress, Volume, read_volume
from restore_rwkv.io.dicom.files import DicomImage, is_dicom, patient_id
from restore_rwkv.io.dicom.folder import images_in

Dose = Literal["full", "low"]

_DOSES: dict[Dose, re.Pattern[str]] = {
    "full": re.compile(r"(?<![a-z])(full|fd|full[ _-]?dose)(?![a-z])", re.IGNORECASE),
    "low": re.compile(
        r"(?<![a-z])(quarter|qd|low|(low|quarter)[ _-]?dose)(?![a-z])", re.IGNORECASE
    ),
}
_SHARP = re.compile(r"sharp|(?<![a-z0-9])d45(?![0-9])", re.IGNORECASE)
_PROJECTIONS = re.compile(r"projections?(?!-data)", re.IGNORECASE)
_PATIENT = re.compile(r"(?<![A-Za-z0-9])[LCN]\d{3}(?![0-9])")
_CHEST_FACTOR = 10.0  # the low dose of chests (C...) is 10 % in the TCIA collection, else 25 %
_SAME_PLACE = 0.01  # mm
_SAME_THICKNESS = 0.01  # mm


@dataclass(frozen=True)
class Series:
    """A series of images of one dose.

    Attributes:
        folder: folder that directly contains its files.
        uid: SeriesInstanceUID, or None where the files have none.
        title: path inside the source, for messages.
        patient: name of the patient, such as "L067".
        dose: "full" or "low".
    """

    folder: Path
    uid: str | None
    title: str
    patient: str
    dose: Dose


def prepare_aapm(
    source: Path | str,
    output: Path | str,
    *,
    thickness: float = 3.0,
    validation: Sequence[str] = ("L109",),
    test: Sequence[str] = ("L506",),
    skip: bool = False,
    progress: Progress | None = None,
) -> Preparation:
    """Prepare pairs of full and low dose, all slices, 512 x 512, in HU.

    Series are found at any depth, in both layouts in which the data is distributed: that of the
    challenge (`full_3mm/L067/full_3mm/*.IMA`, `quarter_3mm/...`) and that of The Cancer Imaging
    Archive (`L067/STUDY/1.000000-Full Dose Images-12345/*.dcm`, `... Low Dose Images ...`). Dose
    and patient come from the words of the path, or else from SeriesDescription and PatientID.
    Slices are paired by position, never by name.

    The paper splits the ten patients of the challenge 8 : 1 : 1, with 2,039, 128 and 211 slices of
    3 mm. Only L506 has 211 slices and only L109 has 128, so these two are the defaults for test and
    validation; all other patients are for training.

    Args:
        source: folder with the data.
        output: folder of the prepared set, to be created.
        thickness: SliceThickness in mm of the series to use. Series of another thickness, sharp
            kernels (`full_3mm_sharp`, D45) and projections are counted and not used.
        validation: patients for validation.
        test: patients for testing.
        skip: leave faulty patients out and report them, instead of raising an error.
        progress: called with (patients done, all).

    Returns:
        The prepared set and the files that were not used.

    Raises:
        InputError: patients have only one dose or several series of one; series cannot be read,
            have slices missing, or lie on different grids; a patient named for validation or
            testing is missing, or is named for both. The message names each.
    """
    source, output = Path(source), Path(output)
    require_source(source, output=output)
    faults, others = Faults(), Counter[str]()
    found = list(_find(source, thickness, faults, others))
    if not found and not faults.entries:
        there = f" ({', '.join(sorted(others))} there)" if others else ""
        raise InputError(
            f"{source}: no CT series with slices of {thickness:g} mm{there}; give the folder that "
            "holds the patients, or another thickness=MM"
        )
    pairs = _pairs(found, faults)
    splits = _splits({series.patient for series in found}, validation, test, faults)
    factor = _factor(list(pairs), faults)
    if faults.grave:
        faults.refuse(source, skip=skip)
    writer = SetWriter(output, "aapm", "ct-denoise", factor)
    jobs = [
        Job(patient, patient, splits[patient], writer, partial(_read, patient, full, low))
        for patient, (full, low) in sorted(pairs.items())
    ]
    with writers(output, writer):
        write_jobs(jobs, faults, source, skip=skip, progress=progress)
        writer.record.update(left_out=faults.entries, not_asked_for=dict(others))
        writer.record["thickness"] = thickness
    return Preparation((PreparedSet.read(output),), faults.entries, dict(others))


def _find(source: Path, thickness: float, faults: Faults, others: Counter[str]) -> Iterator[Series]:
    """Series of that thickness; those whose dose or patient is unknown become faults."""
    for folder, files in folders_with_files(source):
        title = folder.relative_to(source).as_posix()
        if _PROJECTIONS.search(title):
            others["projections"] += len(files)
        elif _SHARP.search(title):
            others["sharp kernel"] += len(files)
        elif any(is_dicom(file) for file in files):
            try:
                yield from _series_in(folder, title, thickness, faults, others)
            except (InputError, OSError) as error:
                faults.add(title, error)
        elif files:
            others["no DICOM"] += len(files)


def _series_in(
    folder: Path, title: str, thickness: float, faults: Faults, others: Counter[str]
) -> Iterator[Series]:
    groups: defaultdict[str, list[DicomImage]] = defaultdict(list)
    for image in images_in(folder):
        groups[str(image.header.get("SeriesInstanceUID") or "")].append(image)
    for uid, images in groups.items():
        first = images[0]
        name = title if len(groups) == 1 else f"{title}, series {uid or 'without UID'}"
        mm = float(first.header.get("SliceThickness") or 0)
        words = [*Path(title).parts, first.path.name]
        description = str(first.header.get("SeriesDescription") or "")
        if _PROJECTIONS.search(description):
            others["projections"] += len(images)
        elif _SHARP.search(first.path.name) or _SHARP.search(description):
            others["sharp kernel"] += len(images)
        elif mm and abs(mm - thickness) > _SAME_THICKNESS:
            others[f"slices of {mm:g} mm"] += len(images)
        else:
            dose, patient = _dose([description, *words]), _patient(words, first.path)
            what = {"SliceThickness": mm, "dose": dose, "patient": patient}
            missing = [key for key, value in what.items() if not value]
            if dose is None or patient is None or missing:
                faults.add(name, f"neither path nor header give: {', '.join(missing)}; rename it")
            else:
                yield Series(folder, uid or None, name, patient, dose)


def _dose(words: Sequence[str]) -> Dose | None:
    """Dose by the last word that names exactly one, i.e. by the file or the innermost folder."""
    for word in reversed(words):
        named = [dose for dose, pattern in _DOSES.items() if pattern.search(word)]
        if len(named) == 1:
            return named[0]
    return None


def _patient(words: Sequence[str], path: Path) -> str | None:
    """Patient by the last word that names one, or by PatientID."""
    for word in reversed(words):
        if match := _PATIENT.search(word):
            return match[0]
    match = _PATIENT.search(patient_id(path))
    return match[0] if match else None


def _pairs(found: Sequence[Series], faults: Faults) -> dict[str, tuple[Series, Series]]:
    """Full and low dose by patient; patients without exactly one of each become faults."""
    groups: defaultdict[str, dict[Dose, list[Series]]] = defaultdict(
        lambda: {"full": [], "low": []}
    )
    for series in found:
        groups[series.patient][series.dose].append(series)
    pairs = {}
    for patient, doses in groups.items():
        if all(len(candidates) == 1 for candidates in doses.values()):
            pairs[patient] = (doses["full"][0], doses["low"][0])
            continue
        for dose, candidates in doses.items():
            other: Dose = "low" if dose == "full" else "full"
            if not candidates:
                titles = ", ".join(series.title for series in doses[other])
                faults.add(patient, f"has no {dose} dose, only {titles}; download the other")
            elif len(candidates) > 1:
                titles = " and ".join(series.title for series in candidates)
                faults.add(patient, f"has several series of {dose} dose: {titles}; keep one")
    return pairs


def _splits(
    patients: set[str], validation: Sequence[str], test: Sequence[str], faults: Faults
) -> dict[str, Split]:
    absent = sorted({*validation, *test} - patients)
    both = sorted({*validation} & {*test})
    if absent:
        faults.grave.append(
            f"{', '.join(absent)}: not there; name patients for validation and test out of "
            f"{', '.join(sorted(patients)) or 'none'}"
        )
    if both:
        faults.grave.append(f"{', '.join(both)}: for validation and for test; name each for one")
    return {
        patient: "test" if patient in test else "validation" if patient in validation else "train"
        for patient in patients
    }


def _factor(patients: Sequence[str], faults: Faults) -> float | None:
    """Factor of chests, or None for that of the task."""
    chests = sorted(patient for patient in patients if patient.startswith("C"))
    if chests and len(chests) < len(patients):
        faults.grave.append(
            f"{', '.join(chests)}: chests at 10 % dose among others at 25 %; prepare them as a "
            "separate set, from a separate folder"
        )
    return _CHEST_FACTOR if chests else None


def _read(patient: str, full: Series, low: Series, faults: Faults) -> list[Slices]:
    high, reduced = (read_volume(series.folder, series=series.uid) for series in (full, low))
    _require_slices_at_same_positions(high, reduced)
    images, spacing = slices_across(high, 2)
    origin = {"full_dose": full.title, "low_dose": low.title}
    return [Slices(patient, images, slices_across(reduced, 2)[0], spacing, origin)]


def _require_slices_at_same_positions(high: Volume, low: Volume) -> None:
    """Check that the slices of two series lie at the same positions, on the same grid."""
    if high.affine is None or low.affine is None:
        raise InputError("has no geometry; download it again")
    if high.data.shape[:2] != low.data.shape[:2]:
        sizes = [f"{v.data.shape[1]} x {v.data.shape[0]}" for v in (high, low)]
        raise InputError(f"slices of {sizes[0]} at full and {sizes[1]} at low dose; leave it out")
    normal = np.cross(high.affine[:3, 0], high.affine[:3, 1])
    normal /= np.linalg.norm(normal)
    full, reduced = _places(high, normal), _places(low, normal)
    for dose, mine, other in (("low", full, reduced), ("full", reduced, full)):
        lone = mine[np.abs(mine[:, None] - other).min(axis=1) > _SAME_PLACE]
        if lone.size:
            raise InputError(
                f"{lone.size} slices have no partner at {dose} dose, the first at {lone[0]:g} mm; "
                "download both series again"
            )
    if not np.allclose(high.affine, low.affine, atol=_SAME_PLACE):
        raise InputError("full and low dose lie on different grids; leave it out")


def _places(volume: Volume, normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positions of the slices along a direction, in mm."""
    assert volume.affine is not None  # both have been checked
    steps = np.arange(volume.data.shape[2])[:, None] * volume.affine[:3, 2]
    places: NDArray[np.float64] = (volume.affine[:3, 3] + steps) @ normal
    return places
