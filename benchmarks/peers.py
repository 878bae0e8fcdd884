"""`python -m benchmarks.peers [--data DIR]`: methods compared on a slice and a volume of CT.

Each method gets a noisy phantom in HU: one slice of 512 x 512, then a stack of 100. Ours run as
users meet them, through `Restorer` (`light` with its shipped weights, `base` with random ones of
the same cost); other networks run slice by slice, or in batches of 4 where that is faster; the
filters estimate the noise of each slice, and assume it is white; those of scikit-image have one
thread. First, results are checked: finite, the same for a single slice as in a stack, and nearer to
the clean phantom for methods that need no training here. Each method has a process of its own, with
the package's `keep_freed_memory` for all. Memory is the peak of a first call above network and
input; times are median (min-max) of calls after it. A volume that would take longer than --cap
seconds is measured on the slices that fit, and marked so.

With --data (from `restore-rwkv data prepare open`) the PSNR on the CT test set by the paper's
protocol is added. The filters' strength is chosen on its validation slices.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks.methods import FILTERS, METHODS, NetworkMethod, Stack, build
from benchmarks.quality import input_psnr, psnr
from benchmarks.timing import (
    LeftOutError,
    Measured,
    command,
    figures,
    header,
    in_fresh_process,
    machine,
    measured,
    mebibytes,
    row,
)
from restore_rwkv.ops.cpu.memory import keep_freed_memory

_SIGMA = 20.0  # HU, of the phantom's noise


def phantom(slices: int, size: int) -> tuple[Stack, Stack]:
    """Return clean and noisy stacks (N, H, W) in HU: water with bones and lungs, in air."""
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    clean = np.full((size, size), -1000, np.float32)
    for x, width, height, hu in ((0, 0.8, 0.6, 0), (-0.4, 0.2, 0.3, -800), (0.45, 0.12, 0.12, 700)):
        clean[((axis - x) / width) ** 2 + (axis[:, None] / height) ** 2 <= 1] = hu
    noise = np.random.default_rng(0).standard_normal((slices, size, size), np.float32)
    noisy = (clean + _SIGMA * noise).clip(min=-1024)  # the least that scanners store
    return np.broadcast_to(clean, noise.shape), noisy


def check(name: str, device: str) -> None:
    """Raise SystemExit unless a method gives finite slices, the same singly as in a stack."""
    method = build(name, device)
    clean, noisy = phantom(2, 64)
    restored = method(noisy)
    if restored.shape != noisy.shape or not np.isfinite(restored).all():
        raise SystemExit(f"{name}: gives {restored.shape}, or values that are not finite")
    change = np.abs(method(noisy[1:])[0] - restored[1]).max()
    if not change < 1e-3 * np.abs(restored).max():
        raise SystemExit(f"{name}: a single slice differs by {change:.2g} HU from that in a stack")
    before, after = (float(np.square(x - clean).mean()) for x in (noisy, restored))
    if name in ("light", *FILTERS) and not after < before:
        raise SystemExit(f"{name}: the error on a phantom grows, {before:.1f} to {after:.1f} HU^2")


def measure(
    name: str, slices: int, size: int, cap: float, device: str
) -> tuple[Measured, Measured, int, int]:
    """Measure a slice and a volume; also return the slices measured, and those per call.

    Call it in a fresh process.
    """
    method = build(name, device)
    _, noisy = phantom(slices, size)
    keep_freed_memory()
    method(noisy[:1, :32, :32])  # one-time initialisation of the libraries is not counted
    used = "cpu" if name in FILTERS else device
    one = measured(lambda: method(noisy[:1]), budget=cap / 3, device=used)
    if isinstance(method, NetworkMethod) and 16 * one.median < cap:  # the slices that it runs
        method.choose_batch(noisy)
    count = min(slices, max(1, int(cap / one.median)))
    volume = measured(lambda: method(noisy[:count]), 2, cap, used)
    return one, volume, count, method.batch


def of_volume(volume: Measured, count: int, slices: int) -> str:
    """Format the seconds of all slices, marked if fewer were measured."""
    times = figures([slices / count * x for x in volume.seconds])
    return times if count == slices else f"per slice x {slices}: {times} (from {count} slices)"


def print_method(name: str, words: argparse.Namespace) -> None:
    """Print one row, with a single cell if the method cannot run here."""
    try:
        in_fresh_process(check, name, words.device)
        work = words.slices, words.size, words.cap, words.device
        one, volume, count, batch = in_fresh_process(measure, name, *work)
        cells = [figures(one.seconds), mebibytes(one.peak)]
        cells += [of_volume(volume, count, words.slices), mebibytes(volume.peak), str(batch)]
        if words.data:
            cells.append(in_fresh_process(psnr, name, words.data, words.device))
    except LeftOutError as error:
        cells = [f"left out: {error}", "", "", "", *([""] if not words.data else ["", ""])]
    row(name, *cells)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with a prepared ct-denoise set")
    parser.add_argument("--slices", type=int, default=100)
    parser.add_argument("--size", type=int, default=512, help="side of a slice in pixels")
    parser.add_argument("--cap", type=float, default=40, help="seconds of a method's volume")
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    words = parser.parse_args(arguments)
    print(f"{command('benchmarks.peers', arguments)}\n\n{machine(words.device)}, float32\n")
    columns = ["method", f"one slice of {words.size} x {words.size}, s", "peak, MiB"]
    columns += [f"{words.slices} slices, s", "peak, MiB", "slices at once"]
    if words.data:
        print(f"PSNR of the input: {input_psnr(words.data):.2f} dB\n")
        columns.append("PSNR, dB")
    header(*columns)
    for name in words.only:
        print_method(name, words)
    if not words.data:
        print("\nNo PSNR: it needs a prepared set, --data DIR.")


if __name__ == "__main__":
    main()
