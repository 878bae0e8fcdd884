"""`python -m benchmarks.step`: a training step in plain PyTorch and through the C kernels.

"before" is the path of blocks that run no C kernels but Bi-WKV: PyTorch's LayerNorm, convolutions,
products and element-wise operations, and its plain Adam. "now" is the path of training on a CPU,
with fused Adam. First, all gradients of both are compared with those in float64. Then steps of both
are taken in turn, on one thread: forward, backward, clipping, Adam and moving average. Times are
median (min-max) of the processor time of this process, which other programs disturb less than the
time of day; ratios are medians over pairs of steps.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.timing import command, header, machine, row, shown
from restore_rwkv.model import PRESETS, RestoreRWKV, blocks
from restore_rwkv.ops.cpu.memory import keep_freed_memory

PARTS = ("forward", "backward", "clipping", "Adam", "moving average")
LARGEST_ERROR = 1e-5  # of each gradient, relative to the norm of all


@contextmanager
def plain() -> Iterator[None]:
    """Keep the blocks from running their C kernels."""
    kernels = blocks.runs_kernels
    blocks.runs_kernels = lambda *_: False
    try:
        yield
    finally:
        blocks.runs_kernels = kernels


class Training:
    """A network in training, with what a step needs, and the times of its steps in ms."""

    def __init__(self, name: str, batch: int, size: int, fused: bool) -> None:
        torch.manual_seed(0)
        self.network = RestoreRWKV(PRESETS[name])
        self.average = RestoreRWKV(PRESETS[name]).requires_grad_(False)
        self.adam = torch.optim.Adam(self.network.parameters(), 1e-5, fused=fused)
        self.low, self.high = torch.rand(2, batch, 1, size, size)
        self.times: list[list[float]] = []

    def loss(self) -> Tensor:
        return F.l1_loss(self.network(self.low), self.high)

    def step(self) -> None:
        marks = [time.process_time()]
        self.adam.zero_grad(set_to_none=True)
        loss = self.loss()
        marks.append(time.process_time())
        loss.backward()
        marks.append(time.process_time())
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        marks.append(time.process_time())
        self.adam.step()
        marks.append(time.process_time())
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.network.parameters(), strict=True)
            for mean, new in pairs:
                mean.lerp_(new, 0.001)
        marks.append(time.process_time())
        self.times.append([1e3 * (b - a) for a, b in itertools.pairwise(marks)])


def gradients(training: Training) -> list[Tensor]:
    """Return the gradients of the parameters."""
    return list(torch.autograd.grad(training.loss(), list(training.network.parameters())))


def check(training: Training) -> None:
    """Print the largest errors of the gradients; raise SystemExit if one is too large."""
    found = gradients(training)
    with plain():
        before = gradients(training)
        network, images = training.network, (training.low, training.high)
        network.double()
        training.low, training.high = (image.double() for image in images)
        exact = gradients(training)
        network.float()
        training.low, training.high = images
    whole = float(torch.nn.utils.get_total_norm(exact))
    errors = {
        path: max(float((a - b).norm()) / whole for a, b in zip(tensors, exact, strict=True))
        for path, tensors in {"before": before, "now": found}.items()
    }
    print(f"largest errors of gradients, of the norm of all: {errors}\n")
    if not errors["now"] < LARGEST_ERROR:
        raise SystemExit("the gradients differ from those in float64")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=tuple(PRESETS), default="light")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=64, help="side of an image in pixels")
    parser.add_argument("--repeats", type=int, default=25)
    words = parser.parse_args(arguments)
    torch.set_num_threads(1)
    keep_freed_memory()
    print(f"{command('benchmarks.step', arguments)}\n\n{machine()}, float32\n")
    shape = words.network, words.batch, words.size
    check(Training(*shape, fused=False))
    before, now = Training(*shape, fused=False), Training(*shape, fused=True)
    for _ in range(words.repeats + 2):
        with plain():
            before.step()
        now.step()
    header("part", "before, ms", "now, ms", "ratio")
    for index, part in enumerate(PARTS):
        print_row(part, *([times[index] for times in t.times[2:]] for t in (before, now)))
    print_row("all", *([sum(times) for times in t.times[2:]] for t in (before, now)))


def print_row(part: str, before: list[float], now: list[float]) -> None:
    ratio = statistics.median(b / a for a, b in zip(before, now, strict=True))
    row(part, shown(before), shown(now), f"{ratio:.2f}")


if __name__ == "__main__":
    main()
