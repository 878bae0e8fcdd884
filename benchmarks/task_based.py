"""What restoration does to tasks: noise texture, sharpness, detection, uptake; on phantoms.

python -m benchmarks.task_based [--slices 40] [--scans 8] [--seed 0] [--figure docs/task-based.png]

CT at a quarter of the dose, PET at a twelfth, MRI of a quarter of the resolution per axis, before
and after the shipped weights, through `Restorer`. First the measures themselves are checked where
the answer is known. `docs/task-based.md` explains the figures.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.optimize import brentq

from benchmarks import task_phantoms as phantoms
from benchmarks.task_phantoms import FULL, LOW, RESTORED, Images
from benchmarks.timing import command, machine
from restore_rwkv import Restorer
from restore_rwkv.evaluation.measures import NoScoreError, Setting
from restore_rwkv.evaluation.physical import (
    PHYSICAL_MEASURES,
    Detectability,
    NoiseSpectrum,
    Recovery,
    TransferFunction,
    contrast_to_noise,
    difference_of_gaussian_channels,
    hotelling_observer,
    laguerre_gauss_channels,
    noise_power_spectrum,
    noise_spectrum_distance,
    recovery_coefficients,
    task_transfer_function,
)
from restore_rwkv.tasks import get_task

BLURRED = "low dose, blurred"
_TOGETHER = 8  # slices
_RESAMPLES = 200
_SPACING = (phantoms.PIXEL, phantoms.PIXEL)


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


@dataclass(frozen=True, eq=False)
class CTRow:
    """Figures of one kind of image, as in the table of CT."""

    spectrum: NoiseSpectrum
    shift: float
    contrast: float
    cnr: float
    seen: Detectability


def checks() -> None:
    """Print the measures where the answer is known."""
    generator = np.random.default_rng(0)
    print("| check | known | measured |\n|---|---|---|")
    noise = gaussian_filter(generator.normal(0, 20, (64, 40, 40)), (0, 1, 1), mode="wrap")
    spectrum = noise_power_spectrum(noise, _SPACING, detrend="none")
    print(
        f"| integral of the NPS over the variance of the noise | 1 | "
        f"{spectrum.variance / np.mean(noise**2):.6f} |"
    )
    slices = phantoms.cut(
        phantoms.ct_truth(lesions=False)[None], phantoms.INSERTS, phantoms.INSERT_SIDE
    )
    found = transfer(slices[:, 2])
    frequency = found.frequency
    exact = np.exp(-2 * (np.pi * phantoms.KERNEL * frequency) ** 2)
    exact *= np.sinc(frequency * phantoms.PIXEL)  # of square pixels, along their sides
    print(
        f"| f50 of the CT phantom without noise, blur and pixels known | "
        f"{np.interp(-0.5, -exact, frequency):.3f} / mm | {found.f50:.3f} / mm |"
    )
    place = np.arange(32) - 15.5
    known = 0.3 * np.exp(-(place[:, None] ** 2 + place**2) / 18)
    channels = laguerre_gauss_channels(32, 3 * np.sqrt(2 * np.pi))
    white = generator.standard_normal((2, 400, 32, 32))
    seen = hotelling_observer(white[0] + known, white[1], channels)
    print(
        f"| d' of a Gaussian signal in white noise | {np.sqrt(np.sum(known**2)):.2f} | "
        f"{interval(seen)} |"
    )
    phantom = phantoms.pet_phantom()
    smallest = recover(phantom.activity, phantom)[0]
    print(f"| recovery of the 10 mm sphere in the activity | 1 | {smallest.mean:.3f} |")


def interval(seen: Detectability) -> str:
    return f"{seen.d_prime:.2f} ({seen.low:.2f}-{seen.high:.2f})"


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
    place = (np.arange(phantoms.SIDE) - (phantoms.SIDE - 1) / 2) * phantoms.PIXEL
    distance = np.hypot(place[:, None], place)
    inside, outside = distance < phantoms.LESION_RADIUS - 1, (distance > 7) & (distance < 13)
    channels = difference_of_gaussian_channels(phantoms.SIDE)
    truth = phantoms.cut(
        phantoms.ct_truth(lesions=False)[None], phantoms.LESIONS, phantoms.SIDE
    ).astype(np.float64)
    rows = {}
    for name in results.absent:
        absent, present = (
            part[name].astype(np.float64) for part in (results.absent, results.present)
        )
        flat = (-1, phantoms.SIDE, phantoms.SIDE)
        count = len(absent)
        noise = (absent - absent.mean(axis=0)) * np.sqrt(count / (count - 1))
        mean = present.mean(axis=(0, 1)) - absent.mean(axis=(0, 1))
        rows[name] = CTRow(
            spectrum=noise_power_spectrum(noise.reshape(flat), _SPACING, detrend="none"),
            shift=float(np.mean(absent - truth)),
            contrast=float(mean[inside].mean()),
            cnr=float(
                np.mean([contrast_to_noise(x, inside, outside) for x in present.reshape(flat)])
            ),
            seen=hotelling_observer(present.reshape(flat), absent.reshape(flat), channels),
        )
    return rows


def transfer(images: NDArray[np.floating]) -> TransferFunction:
    middle = (phantoms.INSERT_SIDE - 1) / 2
    return task_transfer_function(
        images,
        (middle, middle),
        phantoms.INSERT_RADIUS,
        _SPACING,
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
        "| image | noise HU | NPS peak / mm | NPS mean / mm | NPS distance to full dose | shift HU "
        "| lesion HU | CNR | d' (95 %) | AUC |\n" + 10 * "|---" + "|"
    )
    for name, row in rows.items():
        spectrum = row.spectrum
        apart = noise_spectrum_distance(spectrum, rows[FULL].spectrum)
        print(
            f"| {name} | {np.sqrt(spectrum.variance):.1f} | {spectrum.peak_frequency:.2f} | "
            f"{spectrum.mean_frequency:.2f} | {apart:.2f} | {row.shift:+.2f} | "
            f"{row.contrast:.1f} | {row.cnr:.2f} | {interval(row.seen)} | {row.seen.auc:.3f} |"
        )
    titles = " | ".join(f"f50 at {contrast:g} HU" for contrast in phantoms.CONTRASTS)
    heights = " | ".join(f"contrast of {contrast:g} HU" for contrast in phantoms.CONTRASTS)
    print(f"\n| image | {titles} | {heights} |\n" + 7 * "|---" + "|")
    for name, stack in results.inserts.items():
        edges = range(len(phantoms.CONTRASTS))
        sharp = " | ".join(sharpness(stack[:, index]) for index in edges)
        high = " | ".join(f"{transfer(stack[:, index]).contrast:.1f}" for index in edges)
        print(f"| {name} | {sharp} | {high} |")


def recover(image: Images, phantom: phantoms.PETPhantom) -> tuple[Recovery, ...]:
    return recovery_coefficients(
        image, phantom.activity, phantom.spheres, phantom.background, (phantoms.VOXEL,) * 3
    )


def pet_results(
    scans: int, seed: int, restorer: Restorer
) -> tuple[dict[str, list[tuple[Recovery, ...]]], dict[str, list[tuple[float, ...]]]]:
    """Recoveries of each scan, and its biases in %, by name of the image."""
    phantom = phantoms.pet_phantom()
    truth = np.moveaxis(phantom.activity, 2, 0)
    setting = Setting(
        task=get_task("pet-synth"), pixel_mm=(phantoms.VOXEL,) * 2, peak=float(truth.max())
    )
    biases = [m for m in PHYSICAL_MEASURES if m.name in ("suv-mean-bias", "activity-bias")]
    recovered: dict[str, list[tuple[Recovery, ...]]] = {}
    biased: dict[str, list[tuple[float, ...]]] = {}
    for scan in range(scans):
        for name, image in phantoms.pet_images(phantom, 1000 * seed + scan, restorer).items():
            recovered.setdefault(name, []).append(recover(image, phantom))
            stack = np.moveaxis(image, 2, 0)
            values = tuple(measure.compute(stack, truth, setting) for measure in biases)
            biased.setdefault(name, []).append(values)
    return recovered, biased


def print_pet(
    recovered: Mapping[str, Sequence[Sequence[Recovery]]],
    biased: Mapping[str, Sequence[Sequence[float]]],
) -> None:
    """Print the tables of PET, means and standard deviations over scans."""
    titles = " | ".join(f"{diameter:g} mm" for diameter in phantoms.DIAMETERS)
    figures = {
        "recovery, mean": ("mean", "{:.2f} +- {:.2f}"),
        "recovery, maximum": ("maximum", "{:.2f} +- {:.2f}"),
        "contrast recovery %": ("contrast", "{:.0f} +- {:.0f}"),
        "background variability %": ("background_variability", "{:.1f} +- {:.1f}"),
    }
    print(f"\n| figure | image | {titles} |\n" + 8 * "|---" + "|")
    for title, (field, form) in figures.items():
        for name, scans in recovered.items():
            cells = []
            for values in zip(*scans, strict=True):
                numbers = [getattr(value, field) for value in values]
                known = None not in numbers
                cells.append(form.format(np.mean(numbers), np.std(numbers)) if known else "-")
            print(f"| {title} | {name} | {' | '.join(cells)} |")
    print("\n| image | bias of SUVmean % | bias of total activity % |\n|---|---|---|")
    for name, scans_of in biased.items():
        table = np.asarray(scans_of)
        cells = [f"{m:+.1f} +- {s:.1f}" for m, s in zip(table.mean(0), table.std(0), strict=True)]
        print(f"| {name} | {' | '.join(cells)} |")


def print_mr(count: int, restorer: Restorer) -> None:
    """Print the sharpness of edges of MRI, means over slices."""
    centres, images = phantoms.mr_images(count, restorer)
    titles = " | ".join(f"f50 at {100 * part:g} %" for part in phantoms.MR_CONTRASTS)
    print(f"\n| image | {titles} |\n" + (1 + len(phantoms.MR_CONTRASTS)) * "|---" + "|")
    for name, stack in images.items():
        cells = []
        for index in range(len(phantoms.MR_CONTRASTS)):
            found = []
            for image, places in zip(stack, centres, strict=True):
                edge = task_transfer_function(
                    *(image, places[index], phantoms.MR_RADIUS, (1.0, 1.0)),
                    margin_mm=phantoms.MR_MARGIN,
                )
                found.append(edge.f50 if edge.value.min() < 0.5 else np.inf)
            cells.append(f"{np.mean(found):.3f}" if np.isfinite(found).all() else "above 0.5")
        print(f"| {name} | {' | '.join(cells)} |")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slices", type=int, default=40, help="CT slices with lesions, and others")
    parser.add_argument("--scans", type=int, default=8, help="PET scans")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figure", type=Path, help="PNG to write")
    words = parser.parse_args(arguments)
    torch.set_num_threads(1)
    start = time.perf_counter()
    print(f"{command('benchmarks.task_based', arguments)}; {machine()}\n")
    checks()
    results = ct_results(words.slices, words.seed, Restorer("ct-denoise"))
    rows = ct_rows(results)
    print_ct(results, rows)
    pet = pet_results(words.scans, words.seed, Restorer("pet-synth"))
    print_pet(*pet)
    print_mr(4, Restorer("mri-sr"))
    print(f"\n{time.perf_counter() - start:.0f} s")
    if words.figure:
        from benchmarks.task_figure import draw

        edges = {
            name: [transfer(part) for part in stack.swapaxes(0, 1)]
            for name, stack in results.inserts.items()
        }
        draw(words.figure, rows, edges, pet[0])


if __name__ == "__main__":
    main()
