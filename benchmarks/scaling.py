"""`python -m benchmarks.scaling`: time and memory of one slice against its pixels, and a plot.

Ours and MONAI's Restormer, of the paper's size and of the size of `light`, untiled, in their
inference forms, each size in a process of its own. Memory is the peak of a first call above the
weights; times are median (min-max) of calls after it. The slope is that of log time over log
pixels: 1 is linear. A size is left out, with the reason, where the one before it predicts a call
longer than --longest or more memory than is free.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.peer_networks import NETWORKS, inference_form
from benchmarks.timing import (
    LeftOutError,
    Measured,
    command,
    figures,
    free_bytes,
    header,
    in_fresh_process,
    machine,
    measured,
    mebibytes,
    row,
)
from restore_rwkv.io import atomic_file
from restore_rwkv.ops.cpu.memory import keep_freed_memory

Styles = dict[str, tuple[str, str, str]]
"""Style of the line, mark and grey of each."""

SHOWN: Styles = {
    "base": ("-", "o", "0.0"),
    "Restormer": ("--", "s", "0.0"),
    "light": ("-", "^", "0.45"),
    "Restormer-light": ("--", "D", "0.45"),
}

Results = dict[int, Measured]


def check(name: str, device: str) -> float:
    """Return the largest difference between inference and training form, on 32 x 32."""
    torch.manual_seed(0)
    network, image = NETWORKS[name]().eval().to(device), torch.rand(2, 1, 32, 32, device=device)
    truth = network(image.clone().requires_grad_()).detach()  # uses none of the fast paths
    with torch.inference_mode():
        result = inference_form(network)(image)
    if result.shape != image.shape or not result.isfinite().all():
        raise SystemExit(f"{name}: 32 x 32 gives {tuple(result.shape)}, or values not finite")
    error = float((result - truth).abs().max())
    if not error < 1e-4:
        raise SystemExit(f"{name}: its two forms differ by {error:.1e}")
    return error


def measure(name: str, size: int, budget: float, device: str, keep: bool) -> Measured:
    """Measure one slice of size x size. Call it in a fresh process."""
    torch.manual_seed(0)
    network = inference_form(NETWORKS[name]()).to(device)
    image = torch.rand(1, 1, size, size, device=device)
    if keep:
        keep_freed_memory()
    with torch.inference_mode():
        network(image[..., :32, :32])  # one-time initialisation of the libraries is not counted
        return measured(lambda: network(image), budget=budget, device=device)


def too_much(done: Results, size: int, longest: float, device: str) -> str | None:
    """Return why a size is left out, from the largest one measured; None if it is not."""
    if not done:
        return None
    last = max(done)
    growth = (size / last) ** 2
    expected, free = growth * done[last].median, free_bytes(device)
    if expected > longest:
        return f"about {expected:.0f} s a call, above --longest {longest:g}"
    if growth * (done[last].peak or 0) > 0.9 * free:
        return (
            f"about {growth * (done[last].peak or 0) / 2**30:.0f} GiB, {free / 2**30:.0f} are free"
        )
    return None


def measure_sizes(name: str, words: argparse.Namespace) -> Results:
    """Print and return time and memory of each size."""
    done: Results = {}
    for size in sorted(words.sizes):
        try:
            reason = too_much(done, size, words.longest, words.device)
            if reason:
                raise LeftOutError(reason)
            done[size] = in_fresh_process(
                measure, name, size, words.budget, words.device, not words.plain_allocator
            )
            row(name, f"{size} x {size}", figures(done[size].seconds), mebibytes(done[size].peak))
        except LeftOutError as error:
            row(name, f"{size} x {size}", f"left out: {error}", "")
    return done


def slope(done: Results) -> float:
    """Return the exponent of time over pixels."""
    pixels = [2 * np.log(size) for size in done]
    return float(np.polyfit(pixels, np.log([one.median for one in done.values()]), 1)[0])


def label(axes: Axes, starts: dict[str, tuple[float, float]]) -> None:
    """Name each line at its left end, moved upwards where two would overlap."""
    low, high = np.log10(axes.get_ylim())
    last = -np.inf
    for name, (x, y) in sorted(starts.items(), key=lambda item: item[1][1]):
        last = max((np.log10(y) - low) / (high - low), last + 0.05)
        axes.annotate(
            f"{name}   ",
            (x, y),
            (x, 10 ** (low + last * (high - low))),
            fontsize=9,
            ha="right",
            va="center",
        )


def lines(axes: Axes, curves: dict[str, dict[int, float]], what: str, shown: Styles) -> None:
    """Draw one line per network: values over sides of slices, on logarithmic axes."""
    for name, curve in curves.items():
        style, mark, grey = shown[name]
        axes.loglog([n**2 for n in curve], list(curve.values()), style, marker=mark, color=grey)
    sizes = sorted({size for curve in curves.values() for size in curve})
    ends = np.array([sizes[0], sizes[-1]]) ** 2
    below = 0.5 * min(value for curve in curves.values() for value in curve.values())
    axes.loglog(ends, below * ends / ends[0], ":", color="0.45")
    ticks = [size for size in sizes if size & (size - 1) == 0] or sizes  # others lie too close
    axes.set_xticks([size**2 for size in ticks], [f"{size}\u00b2" for size in ticks])
    axes.minorticks_off()
    axes.set_xlim(sizes[0] ** 2 / (sizes[-1] / sizes[0]) ** 0.8 / 1.5, sizes[-1] ** 2 * 1.3)
    axes.set(xlabel="pixels of the slice", ylabel=what)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    starts = {name: (min(curve) ** 2, curve[min(curve)]) for name, curve in curves.items()}
    label(axes, starts | {"linear": (ends[0], below)})


def draw(
    results: dict[str, Results],
    title: str,
    path: Path,
    *,
    shown: Styles = SHOWN,
    below: str = "weights",
) -> None:
    """Draw time and, if the system reports it, peak memory above what is `below` over pixels."""
    times = {name: {n: one.median for n, one in done.items()} for name, done in results.items()}
    peaks = {
        name: {n: one.peak / 2**20 for n, one in done.items() if one.peak}
        for name, done in results.items()
    }
    panels = {"time of one slice (s)": times, f"peak memory above the {below} (MiB)": peaks}
    panels = {what: curves for what, curves in panels.items() if all(curves.values())}
    figure = Figure(figsize=(5 * len(panels), 4.4), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (what, curves) in zip(grid, panels.items(), strict=True):
        lines(axes, curves, what, shown)
    figure.suptitle(title, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=100)


def print_slopes(results: dict[str, Results]) -> None:
    if all(len(done) < 2 for done in results.values()):
        return
    print()
    header("network", "slope of log time over log pixels", "from", "to")
    for name, done in results.items():
        if len(done) > 1:
            row(name, f"{slope(done):.3f}", *(f"{n} x {n}" for n in (min(done), max(done))))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 512, 1024, 2048])
    parser.add_argument("--only", nargs="+", choices=SHOWN, default=list(SHOWN))
    parser.add_argument("--longest", type=float, default=120, help="seconds of one call")
    parser.add_argument("--budget", type=float, default=30, help="seconds of calls per size")
    parser.add_argument("--plain-allocator", action="store_true", help="without keep_freed_memory")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, default=Path("docs/scaling.png"))
    words = parser.parse_args(arguments)
    print(f"{command('benchmarks.scaling', arguments)}\n\n{machine(words.device)}, float32\n")
    results: dict[str, Results] = {}
    header("network", "slice", "seconds", "peak above the weights, MiB")
    for name in words.only:
        try:
            in_fresh_process(check, name, words.device)
        except LeftOutError as error:
            row(name, "", f"left out: {error}", "")
            continue
        results[name] = measure_sizes(name, words)
    results = {name: done for name, done in results.items() if done}
    print_slopes(results)
    if results:
        draw(results, f"{machine(words.device)}, float32", words.out)
        print(f"\n{words.out}")


if __name__ == "__main__":
    main()
