"""Studies for the tests of the report: scores, intervals, tests and slices without any network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from restore_rwkv.evaluation.measures.measure import Measure, Setting, Values
from restore_rwkv.evaluation.study.results import (
    INPUT,
    PairedTest,
    Panel,
    Scored,
    Spectrum,
    Study,
    Summary,
)

TASK = "ct-denoise"
WINDOWS = {"soft tissue": (-160.0, 240.0), "lung": (-1350.0, 150.0), "bone": (-450.0, 1050.0)}
SLICES = 6


def _not_computed(restored: Values, truth: Values, setting: Setting) -> float:
    raise AssertionError("the report computes no measure")


def measure(
    name: str, title: str, unit: str, better: Literal["higher", "lower", "zero"]
) -> Measure:
    return Measure(
        name=name,
        title=title,
        unit=unit,
        better=better,
        bounds=(-np.inf, np.inf),
        of="slice",
        equation=f"{name} = f(x, y)",
        source="A source",
        blind_to="It does not see where errors lie.",
        compute=_not_computed,
    )


MEASURES = (
    measure("psnr", "PSNR", "dB", "higher"),
    measure("ssim", "SSIM", "1", "higher"),
    measure("rmse", "RMSE", "image", "lower"),
    measure("ct-shift", "Mean shift, soft tissue", "HU", "zero"),
)


def images(
    shape: tuple[int, int], noises: Sequence[float], seed: int = 0
) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
    """A body with organs in HU, and the same with noise of each strength."""
    rows, columns = np.meshgrid(
        np.linspace(-1.2, 1.2, shape[0]), np.linspace(-1.2, 1.2, shape[1]), indexing="ij"
    )
    truth = np.where((rows / 0.8) ** 2 + columns**2 < 1, 40.0, -1000.0)
    for row, column, radius, value in ((-0.2, -0.45, 0.3, -800.0), (0.35, 0.3, 0.12, 110.0),
                                       (0.0, 0.4, 0.25, 55.0), (0.5, 0.0, 0.1, 700.0)):  # fmt: skip
        truth[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = value
    random = np.random.default_rng(seed)
    noisy = [truth + random.normal(0, noise, shape) for noise in noises]
    return truth.astype(np.float32), [image.astype(np.float32) for image in noisy]


def panel(
    methods: Sequence[str],
    *,
    task: str = TASK,
    scan: str = "p0-scan",
    slice: int = 0,
    shape: tuple[int, int] = (96, 128),
    why: str = "lowest PSNR of the first method, 24.31 dB",
    pixel_mm: tuple[float, float] | None = (0.8, 0.7),
    noise: float = 60.0,
) -> Panel:
    noises = [noise / (index + 1) for index in range(len(methods))]
    truth, noisy = images(shape, noises, seed=slice)
    return Panel(
        task=task,
        patient="p0",
        scan=scan,
        slice=slice,
        why=why,
        unit="HU",
        pixel_mm=pixel_mm,
        truth=truth,
        images=dict(zip(methods, noisy, strict=True)),
        windows=WINDOWS,
    )


def study(
    gains: Mapping[str, float] = {"light": 2.5, "unet": 2.45},
    *,
    patients: int = 8,
    task: str = TASK,
    panels: Sequence[Panel] | None = None,
    p_holm: Mapping[tuple[str, str], float] | None = None,
    scan: str = "scan",
    provenance: Mapping[str, Any] | None = None,
    of: Literal["patients", "slices"] = "patients",
) -> Study:
    """A study in which each method gains about so many dB over the input.

    Args:
        gains: mean gain in dB, by name of the method.
        patients: number of them, each with `SLICES` slices.
        p_holm: by pair of methods; 0.01 for others.
        scan: end of the names of scans.
        of: what tests are over.
    """
    random = np.random.default_rng(5)
    base = random.normal(28, 1.5, (patients, SLICES))
    psnr = {INPUT: base}
    for name, gain in gains.items():
        psnr[name] = base + gain + random.normal(0, 0.3, base.shape)
    scores = [
        _scored(
            task, f"p{patient}", f"p{patient}-{scan}", index, name, float(values[patient, index])
        )
        for patient in range(patients)
        for index in range(SLICES)
        for name, values in psnr.items()
    ]
    methods = tuple(psnr)
    summaries = [_summary(task, name, m.name, scores, of) for m in MEASURES for name in methods]
    pairs = [(b, a) for i, a in enumerate(methods) for b in methods[i + 1 :]]
    tests = [
        _test(task, m.name, pair, summaries, (p_holm or {}).get(pair, 0.01), of)
        for m in MEASURES
        for pair in pairs
    ]
    frequency = np.linspace(0.02, 0.6, 40)
    spectra = [
        Spectrum(
            task=task,
            method=name,
            frequency=frequency,
            power=900.0 / (index + 1) * frequency * np.exp(-((frequency * (4 + index)) ** 2))
            + 1e-3,
            per_mm=True,
        )
        for index, name in enumerate(methods)
    ]
    return Study(
        methods=methods,
        measures=MEASURES,
        scores=tuple(scores),
        summaries=tuple(summaries),
        tests=tuple(tests),
        panels=tuple(
            panels
            if panels is not None
            else [panel(methods, task=task, scan=f"p0-{scan}", slice=index) for index in (3, 1)]
        ),
        spectra=tuple(spectra),
        provenance=provenance
        or {
            "command": "restore-rwkv evaluate --weights light",
            "seed": 0,
            "weights": {"light": {"sha256": "ab" * 32}},
            "versions": {"torch": "2.13.0", "numpy": "2.4.6"},
        },
        sets={task: f"{patients} patients, {patients * SLICES} slices of the test split."},
    )


def joined(first: Study, second: Study) -> Study:
    """Two studies of different tasks and the same methods as one."""
    return dataclasses.replace(
        first,
        scores=first.scores + second.scores,
        summaries=first.summaries + second.summaries,
        tests=first.tests + second.tests,
        panels=first.panels + second.panels,
        spectra=first.spectra + second.spectra,
        sets={**first.sets, **second.sets},
    )


def _scored(task: str, patient: str, scan: str, slice: int, method: str, psnr: float) -> Scored:
    values: dict[str, float | None] = {
        "psnr": psnr,
        "ssim": 1 - 10 ** (-psnr / 20),
        "rmse": 400 * 10 ** (-psnr / 20),
        "ct-shift": (34 - psnr) / 4,
    }
    reasons = {}
    if patient == "p0" and slice == SLICES - 1:
        values["psnr"] = values["ssim"] = None
        reasons = dict.fromkeys(("psnr", "ssim"), "the truth is constant")
    return Scored(task=task, patient=patient, scan=scan, slice=slice, method=method,
                  values=values, reasons=reasons)  # fmt: skip


def _summary(task: str, method: str, name: str, scores: Sequence[Scored], of: str) -> Summary:
    found = [score for score in scores if score.method == method]
    kept = [
        (score.patient, score.values[name]) for score in found if score.values[name] is not None
    ]
    by_patient: dict[str, list[float]] = {}
    for patient, value in kept:
        by_patient.setdefault(patient, []).append(float(value or 0.0))
    means = [float(np.mean(values)) for values in by_patient.values()]
    mean = float(np.mean(means))
    spread = float(np.std(means)) + 0.01
    return Summary(
        task=task,
        method=method,
        measure=name,
        mean=mean,
        low=mean - spread,
        high=mean + spread,
        resampled=of,
        slice_mean=float(np.mean([value for _, value in kept])),
        patients=len(by_patient),
        slices=len(kept),
        without=len(found) - len(kept),
    )


def _test(
    task: str,
    name: str,
    pair: tuple[str, str],
    summaries: Sequence[Summary],
    p_holm: float,
    of: str,
) -> PairedTest:
    means = {each.method: each.mean or 0.0 for each in summaries if each.measure == name}
    difference = means[pair[0]] - means[pair[1]]
    spread = abs(difference) * (0.2 if p_holm < 0.05 else 2.0)
    return PairedTest(
        task=task,
        measure=name,
        first=pair[0],
        second=pair[1],
        difference=difference,
        low=difference - spread,
        high=difference + spread,
        pairs=8,
        of=of,
        p=p_holm / 2,
        p_holm=p_holm,
    )
