"""What an evaluation gives: scores of several methods on the same scans, and what follows.

Tables, files and the HTML report are made from these plain values alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restore_rwkv.evaluation.measures.measure import Measure

INPUT = "input"
"""Name of the low-quality images among the methods; gains are above them.

Images that were restored elsewhere may come without it.
"""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Scores of one image: a slice of a scan as one method restored it, or the scan as a whole.

    Attributes:
        task: name of the task.
        patient: patient or subject; means over patients weight each of them alike.
        scan: name of the scan or stack, unique in the study.
        slice: index of the slice in the scan; None for measures of the whole scan.
        method: "input", or the name of weights, or of a folder of restored images.
        values: value by name of the measure; None where it has none.
        reasons: why a value is None, by name of the measure.
    """

    task: str
    patient: str
    scan: str
    slice: int | None
    method: str
    values: Mapping[str, float | None]
    reasons: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One measure of one method on all scans of a task.

    Attributes:
        task, method, measure: names.
        mean: mean over patients of the mean over the slices of each; None if nothing has a value.
        low, high: ends of the 95 % bootstrap interval of that mean; None where it cannot be had.
        resampled: what was drawn with replacement: "patients", or "slices" where there is only one
            patient, so that the interval says nothing about other patients; "" without an interval.
        slice_mean: mean over all slices together.
        patients, slices: numbers of those that have a value (for a measure of scans, of scans).
        without: number of slices (or scans) without a value.
    """

    task: str
    method: str
    measure: str
    mean: float | None
    low: float | None
    high: float | None
    resampled: str
    slice_mean: float | None
    patients: int
    slices: int
    without: int


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """Comparison of two methods on the same images, for one task and measure.

    Attributes:
        task, measure: names.
        first, second: names of the methods; the difference is first minus second.
        difference: mean over patients of the mean difference over their slices.
        low, high: ends of its 95 % bootstrap interval, of patients or, where there is only one, of
            slices; None where it cannot be had.
        pairs: number of patients, or of slices where `of` says so.
        of: "patients", or "slices" where there is only one patient.
        p: p-value of the two-sided Wilcoxon signed-rank test over the means of patients; None with
            fewer than 6 patients, or where both methods are equal on all.
        p_holm: the same after Holm's correction for all tests of the task and measure.
    """

    task: str
    measure: str
    first: str
    second: str
    difference: float
    low: float | None
    high: float | None
    pairs: int
    of: str
    p: float | None
    p_holm: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Panel:
    """One slice to look at, as all methods show it.

    Attributes:
        task, patient, scan, slice: which slice, as in `Scored`.
        why: why it is shown, such as "lowest PSNR of light-mri-sr, 24.31 dB".
        unit: unit of the values, such as "HU"; "a.u." for MRI.
        pixel_mm: distance of pixels along rows and columns; None if unknown.
        truth: full-quality slice (H, W), float32, first axis down as it is displayed.
        images: slices by method, "input" first where there is one, on the same grid.
        windows: what black and white stand for, by name of the clinical window, such as
            "soft tissue": (-160.0, 240.0); the first is the one to begin with. Where black
            stands for more than white, it is inverted.
    """

    task: str
    patient: str
    scan: str
    slice: int
    why: str
    unit: str
    pixel_mm: tuple[float, float] | None
    truth: NDArray[np.float32]
    images: Mapping[str, NDArray[np.float32]]
    windows: Mapping[str, tuple[float, float]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Spectrum:
    """Radial noise power spectrum of the difference from the truth, of one task and method.

    Attributes:
        task, method: names.
        frequency: centres of the rings, in 1/mm, or in cycles per pixel where `per_mm` is False.
        power: mean power in each ring, in the squared unit of the image times mm^2 (or pixels).
        per_mm: whether the distance of pixels is known for all slices.
    """

    task: str
    method: str
    frequency: NDArray[np.float64]
    power: NDArray[np.float64]
    per_mm: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """Scores of several methods on the same scans, with intervals, tests and pictures.

    Attributes:
        methods: names, "input" first where there is one.
        measures: what was measured; the first is the one by which methods are ranked and the worst
            slices chosen.
        scores: of every image.
        summaries: by task, method and measure.
        tests: between methods, for every measure.
        panels: slices to look at, the worst ones first.
        spectra: by task and method.
        provenance: JSON values: versions, command, seed, and for each method and data set what it
            is, with its SHA-256.
        sets: one sentence for each task that says what was scored: data, split, patients, slices.
    """

    methods: tuple[str, ...]
    measures: tuple[Measure, ...]
    scores: tuple[Scored, ...]
    summaries: tuple[Summary, ...]
    tests: tuple[PairedTest, ...]
    panels: tuple[Panel, ...]
    spectra: tuple[Spectrum, ...]
    provenance: Mapping[str, Any]
    sets: Mapping[str, str]
