"""Reports of restored phantoms for the tests of their page: without any network or measurement."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from restore_rwkv.evaluation.fidelity.results import (
    Fidelity,
    FidelityMap,
    Figure,
    Place,
    RestoredPair,
    Support,
)
from restore_rwkv.io import Finding, Volume
from restore_rwkv.io.volume import Source
from restore_rwkv.restoration.fit import Fit
from restore_rwkv.restoration.uncertainty import Spread
from restore_rwkv.tasks import get_task
from restore_rwkv.tasks.report_calibration import Intervals, PlaceThreshold, ReportCalibration

SHAPE = (96, 80, 12)
LESION = (30, 52, 7)  # removed from the CT phantom
AFFINE = np.array([[-2.0, 0, 0, 95], [0, -2.2, 0, 87], [0, 0, 5.0, -30], [0, 0, 0, 1]])
"""To the left and to the back, as DICOM has it: what is displayed is not turned."""

Array = NDArray[np.float32]


def body(shape: tuple[int, ...] = SHAPE) -> Array:
    """A body in HU with lungs, a spine and a liver, axes as in `SHAPE`."""
    x, y, z = np.meshgrid(*(np.linspace(-1.2, 1.2, size) for size in shape), indexing="ij")
    made = np.where((x / 1.05) ** 2 + (y / 0.8) ** 2 < 1, 40.0, -1000.0)
    for at, radius, value in (((-0.45, -0.1), 0.32, -830.0), ((0.5, -0.15), 0.28, -830.0),
                              ((0.0, 0.5), 0.16, 420.0), ((-0.35, 0.45), 0.2, 65.0)):  # fmt: skip
        inside = ((x - at[0]) ** 2 + (y - at[1]) ** 2) * (1 + 0.2 * z) < radius**2
        made[inside] = value
    return made.astype(np.float32)


def figure(name: str, title: str, value: float | None, unit: str, support: Support) -> Figure:
    """A figure with sentences that name it."""
    return Figure(
        name=name,
        title=title,
        value=value,
        unit=unit,
        support=support,
        expected="within \u00b12 HU" if unit == "HU" else "below 3",
        says=f"{title.capitalize()} is as told by the fixture.",
        blind_to=f"It does not see what {name} cannot see.",
        reason="" if value is not None else f"too little tissue for {name}",
    )


CT_FIGURES = (
    figure("largest_score", "largest score of a place", 5.83, "", "look"),
    figure("shift_water", "shift of soft tissue", -0.71, "HU", "supported"),
    figure("shift_lung", "shift of lung", 4.9, "HU", "unsupported"),
    figure("noise_peak", "peak of the noise power spectrum", None, "1/mm", "unknown"),
)


def ct(
    *,
    shape: tuple[int, int, int] = SHAPE,
    name: str = "chest.nii.gz",
    places: int = 5,
    spread: bool = True,
    geometry: bool = True,
) -> Fidelity:
    """A CT phantom from which a lesion was removed, with a detector's map and an interval map."""
    before, after, z = _with_lesion(shape)
    affine = AFFINE @ np.diag([SHAPE[0] / shape[0], SHAPE[1] / shape[1], 1, 1])
    pair = RestoredPair(
        before=volume(before, "HU", "CT", f"low-{name}", affine if geometry else None),
        after=volume(after, "HU", "CT", name, affine if geometry else None),
        task=get_task("ct-denoise"),
        axis=2,
        factor=4.0,
        fit=Fit((Finding("doubtful", "kernel", "the kernel is sharp"),)),
        calibration=calibration() if spread else None,
        provenance=provenance(name),
    )
    maps = [score_map(with_data(pair.after, z), 3.5)]
    if spread:
        half = 6 + 30 * np.abs(np.gradient(gaussian_filter(after, 1.0))[0]) / 100
        pair = dataclasses.replace(
            pair, spread=Spread(method="turns", volume=pair.after, samples=8, scale=40.0)
        )
        maps.append(interval_map(with_data(pair.after, half)))
    return Fidelity(
        pair=pair,
        support="look",
        verdict="One place lost structure beyond what noise explains. The mean values of tissue "
        "are kept. Look at place 1 in the scan itself.",
        figures=CT_FIGURES,
        maps=tuple(maps),
        places=spread_places(pair, maps[0], places, first=_lesion(shape)),
        places_by="The five largest scores of a matched filter, at least 15 mm apart; in a "
        "faithful image 1 of 20 slices has a place beyond the threshold.",
        seconds=12.34,
    )


def mri() -> Fidelity:
    """An MRI phantom: sagittal slices, a map of what was inferred, and no threshold."""
    truth = np.clip((body() + 1000) * 0.8, 0, None)
    before = gaussian_filter(truth, (1.5, 1.5, 0))
    affine = np.array([[0, 0, 4.0, -24], [-1.1, 0, 0, 50], [0, -1.1, 0, 44], [0, 0, 0, 1.0]])
    pair = RestoredPair(
        before=volume(before, "a.u.", "MR", "low-t1.nii.gz", affine),
        after=volume(truth, "a.u.", "MR", "t1.nii.gz", affine),
        task=get_task("mri-sr"),
        axis=2,
        factor=(4.0, 4.0),
        tile=(64, 64),
        provenance=provenance("t1.nii.gz"),
    )
    shown = with_data(pair.after, np.abs(truth - before))
    inferred = FidelityMap(
        name="inferred",
        title="detail that was inferred",
        volume=shown,
        unit="a.u.",
        limit=200.0,
        threshold=None,
        signed=False,
        meaning="A value says how much of the image lies beyond the measured k-space.",
        blind_to="It does not see whether what was inferred is right.",
    )
    removed = score_map(with_data(pair.after, (before - truth) / 100), None)
    return Fidelity(
        pair=pair,
        support="supported",
        verdict="The image agrees with the measured k-space. Detail beyond it is inferred.",
        figures=(
            figure(
                "consistency", "disagreement with the measured k-space", 0.0025, "", "supported"
            ),
            figure("inferred", "share of energy that was inferred", 6.2, "%", "supported"),
        ),
        maps=(removed, inferred),
        places=spread_places(pair, removed, 3),
        places_by="The places with the largest change of structure; no threshold is known.",
        seconds=3.0,
    )


def pet() -> Fidelity:
    """A PET phantom with hot spheres."""
    random = np.random.default_rng(1)
    truth = np.where(body((48, 44, 10)) > -900, 1.0, 0.0)
    for at, value in (((20, 20, 5), 9.0), ((30, 26, 5), 4.0)):
        spot = np.zeros(truth.shape)
        spot[at] = 1
        truth += value * gaussian_filter(spot, 1.6) / gaussian_filter(spot, 1.6).max()
    before = np.clip(truth * (1 + 0.4 * random.normal(0, 1, truth.shape)), 0, None)
    affine = np.diag([-4.0, -4.0, 4.0, 1.0])
    pair = RestoredPair(
        before=volume(before, "SUV", "PT", "low-pet.nii.gz", affine),
        after=volume(gaussian_filter(truth, 0.6), "SUV", "PT", "pet.nii.gz", affine),
        task=get_task("pet-synth"),
        axis=2,
        factor=12.0,
    )
    z = score_map(with_data(pair.after, gaussian_filter(before - truth, 1.0) * 8), 3.0)
    return Fidelity(
        pair=pair,
        support="unsupported",
        verdict="The total activity is lower than that of the scan by more than its noise.",
        figures=(
            figure("activity", "total activity over that of the scan", 0.86, "", "unsupported"),
        ),
        maps=(z,),
        places=spread_places(pair, z, 5),
        places_by="The five largest scores, at least 30 mm apart.",
        seconds=2.0,
    )


def unknown() -> Fidelity:
    """A report in which nothing could be measured: no places, no maps, no geometry."""
    made = ct(geometry=False, spread=False)
    return dataclasses.replace(
        made,
        pair=dataclasses.replace(made.pair, fit=None, factor=None, provenance={}),
        support="unknown",
        verdict="Nothing could be measured: the scan shows too little tissue.",
        figures=(figure("noise", "noise of the scan", None, "HU", "unknown"),),
        maps=(),
        places=(),
        places_by="No places: a detector needs at least three slices.",
    )


def hostile(text: str) -> Fidelity:
    """A report in which every name and sentence is a text that no one should trust."""
    made = ct(places=2)
    pair = dataclasses.replace(
        made.pair,
        before=renamed(made.pair.before, text),
        after=renamed(made.pair.after, text),
        fit=Fit((Finding("doubtful", "kernel", text),), unjudged=text),
        provenance={"weights": {"name": text}, text: [text, {text: text}]},
    )
    return dataclasses.replace(
        made,
        pair=pair,
        verdict=text,
        places_by=text,
        figures=tuple(
            dataclasses.replace(
                each, title=text, unit=text, expected=text, says=text, blind_to=text, reason=text
            )
            for each in made.figures
        ),
        maps=tuple(
            dataclasses.replace(each, title=text, unit=text, meaning=text, blind_to=text)
            for each in made.maps
        ),
        places=tuple(dataclasses.replace(each, says=text) for each in made.places),
    )


def _lesion(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(at * size // old for at, size, old in zip(LESION, shape, SHAPE, strict=True))


def _with_lesion(shape: tuple[int, int, int]) -> tuple[NDArray[Any], ...]:
    """The noisy phantom with its lesion, the same restored without it, and a detector's scores."""
    random = np.random.default_rng(3)
    truth = body(shape)
    after = truth + random.normal(0, 4, shape)
    noise = [gaussian_filter(random.normal(0, 1, shape[:2]), 0.7) for _ in range(shape[2])]
    blob = np.zeros(shape)
    blob[_lesion(shape)] = 1.0
    sigma = (2.2 * shape[0] / SHAPE[0], 2.2 * shape[1] / SHAPE[1], 0.6)
    blob = gaussian_filter(blob, sigma)
    blob /= blob.max()
    z = gaussian_filter(random.normal(0, 1, shape), sigma)
    z = np.where(truth > -900, z / (z.std() or 1.0) * 0.8, 0.0) + 5.2 * blob
    return truth + 60 * np.stack(noise, axis=-1) + 25 * blob, after, z


def volume(values: NDArray[Any], unit: str, modality: str, name: str, affine: Any) -> Volume:
    """A volume that was read from a file of a name."""
    made = Volume(values.astype(np.float32), affine, unit, modality)
    return renamed(made, name)


def renamed(of: Volume, name: str) -> Volume:
    """The same volume from another file."""
    return dataclasses.replace(of, source=Source(Path(name), of.data.shape, None))


def with_data(of: Volume, values: NDArray[Any]) -> Volume:
    """A volume on the same grid."""
    return of.with_data(values.astype(np.float32))


def score_map(shown: Volume, threshold: float | None) -> FidelityMap:
    """The map of a detector."""
    return FidelityMap(
        name="removed",
        title="structure removed or added",
        volume=shown,
        unit="",
        limit=6.0,
        threshold=threshold,
        signed=True,
        meaning="A value is the removed structure over the noise of this very scan.",
        blind_to="Structure below the noise of the scan does not show.",
    )


def interval_map(shown: Volume) -> FidelityMap:
    """The map of the half widths of intervals."""
    return FidelityMap(
        name="interval",
        title="half width of the 90 % interval",
        volume=shown,
        unit="HU",
        limit=50.0,
        threshold=None,
        signed=False,
        meaning="The truth lies within the restored value plus and minus this value.",
        blind_to="A bias that all samples share is invisible to the intervals.",
    )


def calibration() -> ReportCalibration:
    """A calibration of both intervals and places."""
    intervals = Intervals(method="turns", level=0.9, factors={"soft": 5.1}, floor=0.05,
                          subjects=12, pixels=4_000_000, coverage=0.893)  # fmt: skip
    places = PlaceThreshold(threshold=3.5, false_alarms=0.05, slices=192)
    return ReportCalibration(intervals=(intervals,), places=places)


def provenance(name: str) -> dict[str, Any]:
    """What a report is from."""
    return {
        "command": f"restore-rwkv restore {name} --report",
        "weights": {"name": "light-ct-denoise", "sha256": "ab" * 32},
        "files": [{"name": name, "sha256": "cd" * 32}],
        "versions": {"torch": "2.13.0", "numpy": "2.4.6"},
    }


def spread_places(
    pair: RestoredPair, shown: FidelityMap, count: int, first: Sequence[int] | None = None
) -> tuple[Place, ...]:
    """The voxels of the largest scores, apart from each other."""
    scores = np.abs(shown.volume.data).copy()
    found = []
    for number in range(count):
        index = (
            tuple(first)
            if first is not None and not number
            else np.unravel_index(int(np.argmax(scores)), scores.shape)
        )
        i, j, k = (int(at) for at in index)
        near = scores.shape[0] // 8
        around = (slice(max(0, at - near), at + near + 1) for at in (i, j))
        scores[(*around, slice(max(0, k - 1), k + 2))] = 0
        affine = pair.after.affine
        world = None if affine is None else affine @ [i, j, k, 1]
        score = float(shown.volume.data[i, j, k])
        found.append(Place(
            index=(i, j, k),
            world=None if world is None else (float(world[0]), float(world[1]), float(world[2])),
            slice=(i, j, k)[pair.axis],
            score=score,
            flagged=shown.threshold is not None and abs(score) > shown.threshold,
            radius_mm=5.0,
            before=float(pair.before.data[i, j, k]),
            after=float(pair.after.data[i, j, k]),
            says=f"Number {number + 1} is {'less' if score > 0 else 'more'} marked than before.",
        ))  # fmt: skip
    return tuple(found)
