"""`python -m benchmarks.ct_physics [SCAN ...] [--figure PNG]`: checks of the laws of simulated CT.

Without a scan, measurements on phantoms: accuracy of the projector, variance over dose, texture,
streaks, and times of one thread. With CT scans (NIfTI or DICOM), the noise of each and the scanner
that explains it; the middle slice of the first one is drawn.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.timing import machine
from restore_rwkv.io import read_volume
from restore_rwkv.physics.ct.calibration import SOFT_TISSUE, calibrated, noise_level
from restore_rwkv.physics.ct.dose import dose_noise, reduce_dose, scan_noise
from restore_rwkv.physics.ct.scanner import CTScanner
from restore_rwkv.physics.rays.geometry import FanBeam, ParallelBeam
from restore_rwkv.physics.rays.kernel import Kernel
from restore_rwkv.physics.rays.projection import Projector

PIXEL = 0.7  # mm, of phantoms of 512 x 512


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ellipses(size: int, pixel: float, *parts: tuple[float, ...]) -> Tensor:
    """Draw air with ellipses of (x, half width, half height in mm, HU) on the middle row."""
    axis = (torch.arange(size) - (size - 1) / 2) * pixel
    hu = torch.full((size, size), -1000.0)
    for x, width, height, value in parts:
        hu[((axis[None] - x) / width) ** 2 + (axis[:, None] / height) ** 2 <= 1] = value
    return hu


def pelvis() -> Tensor:
    hips = [(side * 80, r, r, hu) for side in (-1, 1) for r, hu in ((24, 700), (18, 350))]
    return ellipses(512, PIXEL, (0, 155, 110, -90), (0, 142, 97, 50), *hips)


def power(noise: Tensor, pixel: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return shifted noise power in HU^2 mm^2 of (N, n, n), row and column frequencies in 1/mm."""
    side = noise.shape[-1]
    taper = torch.hann_window(side, periodic=False)
    taper = taper.outer(taper)
    centred = (noise - noise.mean((1, 2), keepdim=True)) * taper
    spectrum = torch.fft.fft2(centred).abs().square().mean(0) * pixel**2 / taper.square().sum()
    frequency = torch.fft.fftshift(torch.fft.fftfreq(side, pixel))
    rows, columns = torch.meshgrid(frequency, frequency, indexing="ij")
    return torch.fft.fftshift(spectrum), rows, columns


def profile(spectrum: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Average over rings of 0.02 / mm: frequency in 1/mm, and power."""
    ring = (torch.hypot(rows, columns) / 0.02).long().flatten()
    power_of = torch.zeros(int(ring.max()) + 1).index_add_(0, ring, spectrum.flatten())
    return (torch.arange(len(power_of)) + 0.5) * 0.02, power_of / ring.bincount()


def variance_over_dose() -> None:
    """Print the ratio of noise after insertion to the noise of the scan of a disc."""
    clean = ellipses(256, PIXEL, (0, 80, 80, 0)).repeat(32, 1, 1)
    inside = ellipses(256, PIXEL, (0, 70, 70, 0)) == 0
    full = scan_noise(clean, (PIXEL, PIXEL), scanner=CTScanner(), generator=seeded(1))
    print("| dose | variance over that of the scan | ideal | mean in HU |\n|---|---|---|---|")
    for parts in (2, 4, 10, 20):
        noise = dose_noise(
            clean + full, (PIXEL, PIXEL), dose=1 / parts, scanner=CTScanner(), generator=seeded(2)
        )
        ratio = (full + noise)[:, inside].var() / full[:, inside].var()
        mean = float(noise[:, inside].mean())
        print(f"| 1/{parts} | {float(ratio):.2f} | {parts} | {mean:+.3f} |")


def texture() -> None:
    """Print the peak of the noise power of a disc, and the streaks between hips."""
    disc = ellipses(256, PIXEL, (0, 85, 85, 0)).repeat(16, 1, 1)
    noise = dose_noise(disc, (PIXEL, PIXEL), dose=0.25, scanner=CTScanner(), generator=seeded())
    frequency, curve = profile(*power(noise[:, 64:192, 64:192], PIXEL))
    peak = int(curve.argmax())
    print(
        f"noise power of a disc: peak at {float(frequency[peak]):.2f} / mm; at 0.01 / mm "
        f"{float(curve[0] / curve[peak]):.2f} and at 0.65 / mm {float(curve[32] / curve[peak]):.4f}"
        " of the peak"
    )
    hips = pelvis()
    noise = dose_noise(
        hips.repeat(8, 1, 1), (PIXEL, PIXEL), dose=0.25, scanner=CTScanner(), generator=seeded()
    )
    spectrum, rows, columns = power(noise[:, 192:320, 192:320], PIXEL)
    radius, angle = torch.hypot(rows, columns), torch.atan2(rows.abs(), columns.abs())
    band = (radius > 0.05) & (radius < 0.3)
    vertical = spectrum[band & (angle > math.radians(67.5))].mean()
    horizontal = spectrum[band & (angle < math.radians(22.5))].mean()
    window = noise[:, (hips > -160) & (hips < 240)].square().mean().sqrt()
    print(
        f"pelvis at a quarter of the dose: vertical over horizontal power "
        f"{float(vertical / horizontal):.1f}; RMS noise {float(window):.1f} HU on [-160, 240]"
    )
    bone = ellipses(128, 1.4, (0, 60, 60, 800)).repeat(16, 1, 1)
    few = dose_noise(
        bone, (1.4, 1.4), dose=0.05, scanner=CTScanner(photons=1e4), generator=seeded()
    )[:, 34:94, 34:94]
    error = float(few.mean((1, 2)).std()) / 4
    print(f"few photons behind bone: mean {float(few.mean()):+.1f} +- {error:.1f} HU")


def seconds(call: Callable[[], object]) -> float:
    """Return the processor time of the faster of two calls, which excludes other programs."""
    times = []
    for _ in range(2):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def line_integrals() -> None:
    """Print the error of projections of an off-centre disc, 100 mm wide, against its chords."""
    for geometry in (ParallelBeam(512, PIXEL), FanBeam(512, PIXEL)):
        axis = ((torch.arange(2048, dtype=torch.float64) + 0.5) / 4 - 256) * PIXEL
        inside = torch.hypot(axis[None] - 60, -axis[:, None] - 35) <= 50
        image = inside.float().view(512, 4, 512, 4).mean((1, 3))
        views = torch.arange(geometry.views, dtype=torch.float64)[:, None]
        normal = views * geometry.arc / geometry.views + geometry.ray_angles()
        offset = geometry.ray_distances() - 60 * normal.cos() - 35 * normal.sin()
        truth = 2 * (2500 - offset.square()).clamp(min=0).sqrt()
        projector = Projector(geometry)
        sinogram = projector.A(image)
        error = float((sinogram - truth).norm() / truth.norm())
        bias = float(sinogram.double().mean() / truth.mean() - 1)
        other = torch.rand(sinogram.shape, generator=seeded())
        left = (sinogram.double() * other).sum()
        right = (image.double() * projector.A_adjoint(other)).sum()
        core = torch.hypot(axis[None] - 60, -axis[:, None] - 35) < 45
        core = core.view(512, 4, 512, 4).all(3).all(1)
        value = float(projector.fbp(truth.float(), Kernel()).double()[core].mean())
        print(
            f"{type(geometry).__name__}: line integrals {100 * error:.2f} % off, bias "
            f"{100 * bias:+.3f} %; <Ax, y> / <x, A*y> - 1 = {float(left / right - 1):.0e}; "
            f"back-projected chords have the value {value:.5f} (1)"
        )


def speed() -> None:
    print(f"\n{machine()}, processor seconds\n")
    print("| | A | A_adjoint | fbp |\n|---|---|---|---|")
    cases = {
        "parallel, 512 x 512, 720 views": (ParallelBeam(512, PIXEL), 1),
        "the same, 8 images, each": (ParallelBeam(512, PIXEL), 8),
        "fan, 512 x 512, 1152 views": (FanBeam(512, PIXEL), 1),
        "parallel, 128 x 128, 192 views, 50 images": (ParallelBeam(128, 3.0, views=192), 50),
    }
    for name, (geometry, count) in cases.items():
        projector = Projector(geometry)
        image = torch.rand(count, geometry.size, geometry.size)
        sinogram = projector.A(image)
        per = count if "each" in name else 1
        calls = (
            lambda: projector.A(image),
            lambda: projector.A_adjoint(sinogram),
            lambda: projector.fbp(sinogram),
        )
        print(f"| {name} |", " | ".join(f"{seconds(call) / per:.2f}" for call in calls), "|")
    slices = pelvis().repeat(16, 1, 1)
    took = seconds(
        lambda: reduce_dose(
            slices, (PIXEL, PIXEL), dose=0.25, scanner=CTScanner(), generator=seeded()
        )
    )
    print(f"\nreduce_dose, 512 x 512: {took / 16:.2f} s per slice, {61 * took / 16:.0f} s for 61")


def axial(path: Path) -> tuple[Tensor, tuple[float, float]]:
    """Return slices (N, H, W) in HU, front of the body up if the file has the usual order."""
    volume = read_volume(path)
    spacing = volume.spacing
    if spacing is None:
        raise SystemExit(f"{path}: has no geometry")
    return torch.from_numpy(np.ascontiguousarray(volume.data.transpose(2, 1, 0))), (
        spacing[1],
        spacing[0],
    )


def scans(paths: list[Path]) -> None:
    """Print the fitted scanner of each scan, its noise, and the noise that a quarter dose adds."""
    print(
        "| scan | matrix, pixel | `noise_level` | photons | cutoff | bowtie | own noise | inserted "
        "at 1/4 | variance at half dose |\n" + 9 * "|---" + "|"
    )
    for path in paths:
        slices, spacing = axial(path)
        scanner = calibrated(CTScanner(), slices, spacing)
        half = reduce_dose(slices, spacing, dose=0.5, scanner=scanner, generator=seeded())
        own, of_half = (
            scan_noise(slices, spacing, scanner=fitted, generator=seeded(1))
            for fitted in (scanner, calibrated(CTScanner(), half, spacing))
        )
        quarter = dose_noise(slices, spacing, dose=0.25, scanner=scanner, generator=seeded(2))
        soft = (slices > SOFT_TISSUE[0]) & (slices < SOFT_TISSUE[1])
        matrix = " x ".join(str(n) for n in slices.shape)
        radius = scanner.bowtie_radius
        print(
            f"| {path.name} | {matrix}, {spacing[0]:.2f} mm | {noise_level(slices):.1f} HU | "
            f"{scanner.photons:.2g} | {scanner.kernel.cutoff:.2f} | "
            f"{'none' if radius is None else f'{radius:.0f} mm'} | {float(own[soft].std()):.1f} HU "
            f"| {float(quarter[soft].std()):.1f} HU | "
            f"{float(of_half[soft].var() / own[soft].var()):.2f} times |"
        )


def draw(path: Path, scan: Path | None) -> None:
    """Draw full and quarter dose, their difference, and its power spectrum."""
    from matplotlib.figure import Figure

    if scan is None:
        slices, spacing, scanner = pelvis()[None], (PIXEL, PIXEL), CTScanner()
    else:
        slices, spacing = axial(scan)
        scanner = calibrated(CTScanner(), slices, spacing)
    full = slices[len(slices) // 2]
    noise = dose_noise(
        full.repeat(24, 1, 1), spacing, dose=0.25, scanner=scanner, generator=seeded()
    )
    quarter = (full + noise[0]).clamp(min=-1024)
    height, width = full.shape
    near = slice(height // 4, 3 * height // 4), slice(width // 4, 3 * width // 4)
    middle = slice(height // 2 - 48, height // 2 + 48), slice(width // 2 - 48, width // 2 + 48)
    spectrum, rows, columns = power(noise[:, middle[0], middle[1]], spacing[0])
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    axes = figure.subplot_mosaic(
        [["full", "quarter", "difference", "ring"], ["full", "quarter", "difference", "curve"]],
        width_ratios=(1, 1, 1.15, 0.62),
    )
    for name, image, title in (
        ("full", full[near], "full dose"),
        ("quarter", quarter[near], "a quarter of the dose"),
    ):
        axes[name].imshow(image, cmap="gray", vmin=-110, vmax=190)
        axes[name].set_title(title)
        axes[name].set_axis_off()
    shown = axes["difference"].imshow(quarter - full, cmap="gray", vmin=-60, vmax=60)
    axes["difference"].set_title("difference (HU), whole slice")
    axes["difference"].set_axis_off()
    figure.colorbar(shown, ax=axes["difference"], shrink=0.7)
    smooth = torch.nn.functional.avg_pool2d(spectrum[None], 3, 1, 1, count_include_pad=False)[0]
    edge = float(columns.max())
    axes["ring"].imshow(smooth, cmap="magma", extent=(-edge, edge, -edge, edge), vmin=0)
    axes["ring"].set(title="noise power", xlim=(-0.5, 0.5), ylim=(-0.5, 0.5))
    axes["ring"].set(xticks=(-0.4, 0, 0.4), yticks=(-0.4, 0, 0.4))
    frequency, curve = profile(spectrum, rows, columns)
    axes["curve"].plot(frequency, curve)
    axes["curve"].set(xlabel="1 / mm", ylabel="HU² mm²", xlim=(0, 0.7), ylim=(0, None))
    axes["curve"].grid(alpha=0.3)
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description="The laws that simulated CT obeys, measured.")
    parser.add_argument("scans", nargs="*", type=Path, help="CT scans: NIfTI files, DICOM folders")
    parser.add_argument("--figure", type=Path, help="PNG to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.scans:
        scans(arguments.scans)
    else:
        line_integrals()
        variance_over_dose()
        texture()
        speed()
    if arguments.figure:
        draw(arguments.figure, arguments.scans[0] if arguments.scans else None)


if __name__ == "__main__":
    main()
