"""CT of `benchmarks.task_based`: noise, lesions and edges, of each kind of image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.optimize import brentq
from scipy.stats import t as student

from benchmarks import task_phantoms as phantoms
from benchmarks.task_phantoms import FULL, LOW, RESTORED, Images
from restore_rwkv import Restorer
from restore_rwkv.evaluation.measures.measure import NoScoreError
from restore_rwkv.evaluation.physical import (
    Detectability,
    NoiseSpectrum,
    TransferFunction,
    contrast_to_noise,
    difference_of_gaussian_channels,
    hotelling_observer,
    noise_power_spectrum,
    noise_spectrum_distance,
    task_transfer_function,
)

BLURRED = "low dose, blurred"
SPACING = (phantoms.PIXEL, phantoms.PIXEL)
_TOGETHER = 8  # slices
_RESAMPLES = 200
_CHANNELS = difference_of_gaussian_channels(phantoms.SIDE)
_FEWEST = 8  # slices for an interval of d' over that of the input


@dataclass(eq=False)
class CTResults:
    """Regions of realisations by name of the image.

    Attributes:
        absent, present: (N, lesions, side, side), without and with lesions.
        inserts: (2 N, inserts, side, side).
        blur: sd in mm of the blur that leaves as much noise as restoration.
    """

    absent: dict[str, NDArray[np.float32]]
    present: dict[str, NDArray[np.float32]]
    inserts: dict[str, NDArray[np.float32]]
    blur: float


@dataclass(frozen=True)
class Lesion:
    """One kind of lesion as it shows.

    Attributes:
        contrast: in the mean over images, in HU.
        cnr: mean over images, in which a lesion that looks darker counts as negative.
        seen: its detectability.
        over_input: d' over that of the low dose, and the ends of its 95 % interval; None for the
            low dose, and where there are too few slices.
    """

    contrast: float
    cnr: float
    seen: Detectability
    over_input: tuple[float, float, float] | None


@dataclass(frozen=True, eq=False)
class CTRow:
    """Figures of one kind of image, as in the table of CT."""

    spectrum: NoiseSpectrum
    shift: float
    lesions: Sequence[Lesion]


def interval(seen: Detectability) -> str:
    return f"{seen.d_prime:.2f} ({seen.low:.2f}-{seen.high:.2f})"


def _over(one: Lesion) -> str:
    if one.over_input is None:
        return "-"
    found, low, high = one.over_input
    return f"{found:.2f} ({low:.2f}-{high:.2f})"


def ct_results(slices: int, seed: int, restorer: Restorer) -> CTResults:
    """Make and restore the realisations, slices with lesions and others in turn."""
    parts: dict[str, dict[str, list[NDArray[np.float32]]]] = {}
    truths = [phantoms.ct_truth(lesions) for lesions in (False, True)]
    blur = 0.0
    for first in range(0, slices, _TOGETHER):
        count = min(_TOGETHER, slices - first)
        for kind, truth in zip(("absent", "present"), truths, strict=True):
            number = 1000 * seed + 2 * first + (kind == "present")
            images = phantoms.ct_images(truth, count, number, restorer)
            blur = blur or equal_blur(images, truth)
            sigma = blur / phantoms.PIXEL
            images[BLURRED] = gaussian_filter(images[LOW], (0, sigma, sigma))
            for name, stack in images.items():
                into = parts.setdefault(name, {})
                lesions = phantoms.cut(stack, phantoms.LESIONS, phantoms.SIDE)
                inserts = phantoms.cut(stack, phantoms.INSERTS, phantoms.INSERT_SIDE)
                into.setdefault(kind, []).append(lesions)
                into.setdefault("inserts", []).append(inserts)
    absent, present, inserts = (
        {name: np.concatenate(into[kind]) for name, into in parts.items()}
        for kind in ("absent", "present", "inserts")
    )
    return CTResults(absent, present, inserts, blur)


def equal_blur(images: Mapping[str, NDArray[np.float32]], truth: Images) -> float:
    """Sd in mm of the Gaussian that leaves the low-dose slices as much noise as restoration."""

    def noise(stack: NDArray[np.floating]) -> float:
        parts = phantoms.cut(stack - stack.mean(axis=0), phantoms.LESIONS, phantoms.SIDE)
        return float(parts.std())

    wanted, noisy = noise(images[RESTORED]), images[LOW] - truth

    def excess(sigma: float) -> float:
        return noise(gaussian_filter(noisy, (0, sigma, sigma))) - wanted

    return float(brentq(excess, 0.05, 8.0, xtol=0.01)) * phantoms.PIXEL


def ct_rows(results: CTResults) -> dict[str, CTRow]:
    """Figures of each kind of image."""
    truth = phantoms.cut(
        phantoms.ct_truth(lesions=False)[None], phantoms.LESIONS, phantoms.SIDE
    ).astype(np.float64)
    rows = {}
    for name in results.absent:
        absent = results.absent[name].astype(np.float64)
        count = len(absent)
        noise = (absent - absent.mean(axis=0)) * np.sqrt(count / (count - 1))
        rows[name] = CTRow(
            spectrum=noise_power_spectrum(_in_a_row(noise), SPACING, detrend="none"),
            shift=float(np.mean(absent - truth)),
            lesions=[lesion(results, name, kind) for kind in range(len(phantoms.KINDS))],
        )
    return rows


def lesion(results: CTResults, name: str, kind: int) -> Lesion:
    """How a lesion of one of `KINDS`, in the middle of regions, shows in one kind of image."""
    present, absent = _with_and_without(results, name, kind, slice(None))
    radius = phantoms.KINDS[kind][1]
    place = (np.arange(phantoms.SIDE) - (phantoms.SIDE - 1) / 2) * phantoms.PIXEL
    distance = np.hypot(place[:, None], place)
    inside, outside = distance < radius - 1, (distance > radius + 2) & (distance < 13)
    ratios = [
        contrast_to_noise(image, inside, outside)
        * np.sign(image[inside].mean() - image[outside].mean())
        for image in present
    ]
    return Lesion(
        contrast=float((present.mean(axis=0) - absent.mean(axis=0))[inside].mean()),
        cnr=float(np.mean(ratios)),
        seen=hotelling_observer(present, absent, _CHANNELS),
        over_input=over_input(results, name, kind),
    )


def over_input(results: CTResults, name: str, kind: int) -> tuple[float, float, float] | None:
    """Return d' over that of the low dose, and the ends of its 95 % interval.

    Both kinds of images have the same noise, so that their ratio is known far better than either.
    The interval is that of a jackknife over slices, of the logarithm.
    """
    count = len(results.absent[name])
    if name == LOW or count < _FEWEST:
        return None

    def ratio(kept: slice | NDArray[np.bool_]) -> float:
        found, of_input = (
            hotelling_observer(*_with_and_without(results, image, kind, kept), _CHANNELS).d_prime
            for image in (name, LOW)
        )
        return found / of_input

    without_one = np.log([ratio(np.arange(count) != left_out) for left_out in range(count)])
    spread = np.sqrt((count - 1) * without_one.var()) * student.ppf(0.975, count - 1)
    found = ratio(slice(None))
    return found, float(found * np.exp(-spread)), float(found * np.exp(spread))


def _with_and_without(
    results: CTResults, name: str, kind: int, kept: slice | NDArray[np.bool_]
) -> tuple[Images, Images]:
    """Regions (N, side, side) with a kind of lesion, and without, of the slices that are kept."""
    with_it, without = (
        _in_a_row(part[name][kept, kind :: len(phantoms.KINDS)].astype(np.float64))
        for part in (results.present, results.absent)
    )
    return with_it, without


def _in_a_row(regions: Images) -> Images:
    return regions.reshape(-1, phantoms.SIDE, phantoms.SIDE)


def transfer(images: NDArray[np.floating]) -> TransferFunction:
    middle = (phantoms.INSERT_SIDE - 1) / 2
    return task_transfer_function(
        images,
        (middle, middle),
        phantoms.INSERT_RADIUS,
        SPACING,
        margin_mm=phantoms.INSERT_MARGIN,
    )


def sharpness(images: NDArray[np.floating]) -> str:
    """f50 of slices of an insert, with its 95 % bootstrap interval over the slices, as text."""
    generator, values = np.random.default_rng(0), []
    for _ in range(_RESAMPLES):
        drawn = images[generator.integers(0, len(images), len(images))]
        try:
            values.append(transfer(drawn).f50)
        except NoScoreError:
            values.append(np.inf)
    low, high = np.quantile(values, (0.025, 0.975), method="nearest")
    return f"{transfer(images).f50:.3f} ({low:.3f}-{high:.3f})"


def print_ct(results: CTResults, rows: Mapping[str, CTRow]) -> None:
    """Print the tables of CT."""
    print(f"\nBlur: Gaussian of {results.blur:.2f} mm.\n")
    print(
        "| image | noise HU | NPS peak / mm | NPS mean / mm | NPS distance to full dose "
        "| shift HU |" + "\n" + 6 * "|---" + "|"
    )
    for name, row in rows.items():
        spectrum = row.spectrum
        apart = noise_spectrum_distance(spectrum, rows[FULL].spectrum)
        print(
            f"| {name} | {np.sqrt(spectrum.variance):.1f} | {spectrum.peak_frequency:.2f} | "
            f"{spectrum.mean_frequency:.2f} | {apart:.2f} | {row.shift:+.2f} |"
        )
    print(
        "\n| lesion | image | shows as HU | CNR | d' (95 %) | d' over input | AUC |\n"
        + 7 * "|---"
        + "|"
    )
    for index, (contrast, radius) in enumerate(phantoms.KINDS):
        for name, row in rows.items():
            one = row.lesions[index]
            print(
                f"| {contrast:g} HU, radius {radius:g} mm | {name} | {one.contrast:.1f} | "
                f"{one.cnr:.2f} | {interval(one.seen)} | {_over(one)} | {one.seen.auc:.3f} |"
            )
    titles = " | ".join(f"f50 at {contrast:g} HU" for contrast in phantoms.CONTRASTS)
    heights = " | ".join(f"contrast of {contrast:g} HU" for contrast in phantoms.CONTRASTS)
    print(f"\n| image | {titles} | {heights} |\n" + 7 * "|---" + "|")
    for name, stack in results.inserts.items():
        edges = range(len(phantoms.CONTRASTS))
        sharp = " | ".join(sharpness(stack[:, index]) for index in edges)
        high = " | ".join(f"{transfer(stack[:, index]).contrast:.1f}" for index in edges)
        print(f"| {name} | {sharp} | {high} |")
