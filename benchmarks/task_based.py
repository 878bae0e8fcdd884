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
from pathlib import Path

import numpy as np
import torch
from scipy import integrate
from scipy.ndimage import gaussian_filter

from benchmarks import task_phantoms as phantoms
from benchmarks.task_ct import SPACING, ct_results, ct_rows, interval, print_ct, transfer
from benchmarks.task_phantoms import Images
from benchmarks.timing import command, machine
from restore_rwkv import Restorer
from restore_rwkv.evaluation.measures.measure import Setting
from restore_rwkv.evaluation.physical import (
    PHYSICAL_MEASURES,
    Recovery,
    hotelling_observer,
    laguerre_gauss_channels,
    noise_power_spectrum,
    recovery_coefficients,
    task_transfer_function,
)
from restore_rwkv.tasks import get_task


def checks() -> None:
    """Print the measures where the answer is known."""
    generator = np.random.default_rng(0)
    print("| check | known | measured |\n|---|---|---|")
    noise = gaussian_filter(generator.normal(0, 20, (64, 40, 40)), (0, 1, 1), mode="wrap")
    spectrum = noise_power_spectrum(noise, SPACING, detrend="none")
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
    white = generator.standard_normal((2, 1500, 32, 32))
    seen = hotelling_observer(white[0] + known, white[1], channels)
    print(
        f"| d' of a Gaussian signal in white noise | {np.sqrt(np.sum(known**2)):.2f} | "
        f"{interval(seen)} |"
    )
    phantom = phantoms.pet_phantom()
    blurred = recover(gaussian_filter(phantom.activity, 3.0 / phantoms.VOXEL), phantom)[0]
    print(
        f"| contrast recovery of the 10 mm sphere under a Gaussian of 3 mm, voxels known | "
        f"{contrast_under_blur(10.0, 3.0):.1f} % | {blurred.contrast:.1f} % |"
    )


def contrast_under_blur(diameter: float, blur: float) -> float:
    """Contrast recovery in % of a sphere in mm under a Gaussian of an sd in mm, in the phantom.

    The share of a ball's activity that stays in the ball is the mean of the overlap of two balls
    over their distance. That of the truth, of which voxels hold shares, is below 1 too.
    """
    voxels = phantoms.VOXEL / np.sqrt(12)

    def kept(sigma: float) -> float:
        def density(r: float) -> float:
            overlap = 1 - 1.5 * r / diameter + 0.5 * (r / diameter) ** 3
            return float(
                overlap * np.sqrt(2 / np.pi) * r**2 / sigma**3 * np.exp(-((r / sigma) ** 2) / 2)
            )

        return float(integrate.quad(density, 0, diameter)[0])

    return 100 * kept(float(np.hypot(blur, voxels))) / kept(float(voxels))


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
                cells.append(form.format(np.mean(numbers), _spread(numbers)) if known else "-")
            print(f"| {title} | {name} | {' | '.join(cells)} |")
    print("\n| image | bias of SUVmean % | bias of total activity % |\n|---|---|---|")
    for name, scans_of in biased.items():
        table = np.asarray(scans_of)
        cells = [f"{np.mean(part):+.1f} +- {_spread(part):.1f}" for part in table.T]
        print(f"| {name} | {' | '.join(cells)} |")


def _spread(values: Sequence[float] | Images) -> float:
    """Standard deviation over scans; 0 of one scan."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


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
    start, worked = time.perf_counter(), time.process_time()
    print(f"{command('benchmarks.task_based', arguments)}; {machine()}\n")
    checks()
    results = ct_results(words.slices, words.seed, Restorer("ct-denoise"))
    rows = ct_rows(results)
    print_ct(results, rows)
    pet = pet_results(words.scans, words.seed, Restorer("pet-synth"))
    print_pet(*pet)
    print_mr(4, Restorer("mri-sr"))
    took = time.perf_counter() - start, time.process_time() - worked
    print(f"\n{took[0]:.0f} s, of which the processor worked {took[1]:.0f} s")
    if words.figure:
        from benchmarks.task_figure import draw

        edges = {
            name: [transfer(part) for part in stack.swapaxes(0, 1)]
            for name, stack in results.inserts.items()
        }
        draw(words.figure, rows, edges, pet[0])


if __name__ == "__main__":
    main()
