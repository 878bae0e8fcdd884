"""`python -m benchmarks.bi_wkv`: time of the operator and of its lower bound.

On a CPU the bound is one exponential per element. With `--device cuda` it is a copy within GPU
memory: GB/s of the operator count k and v read once and y written once, those of the copy one read
and one write of as many bytes in all. Timed by CUDA events after a warm-up; caches are not flushed
between calls, so that what fits in them is read from there.
Each row is checked against float64 before it is timed. Times are median (min-max) in ms.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch

from benchmarks.timing import machine, milliseconds, ratio, shown
from restore_rwkv.ops import bi_wkv
from restore_rwkv.ops.cpu.memory import keep_freed_memory
from restore_rwkv.ops.reference import bi_wkv_rows

SHAPES = ((256, 384), (1024, 192), (4096, 96), (16384, 48), (65536, 48), (262144, 48))
LIMITS = {torch.float32: 1e-5, torch.bfloat16: 1e-2}  # largest relative RMS error


def check(w: torch.Tensor, u: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> float:
    """Return the relative RMS error of 64 outputs of 8 channels against the equation in float64."""
    rows = torch.randint(0, k.shape[1], (64,), device=k.device)
    part = [x[..., :8].double() for x in (w, u, k, v)]
    truth = bi_wkv_rows(*part, rows)
    error = bi_wkv(w, u, k, v)[:, rows, :8].double() - truth
    relative = float((error.square().mean() / truth.square().mean()).sqrt())
    limit = LIMITS[k.dtype]
    if not relative < limit:
        raise SystemExit(f"T = {k.shape[1]}: relative RMS error {relative:.1e} is above {limit}")
    return relative


def on_cpu() -> None:
    keep_freed_memory()
    print(machine())
    print("| T | C | error | exp(k - max) | forward | / exp | columns | backward | / exp | torch |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for tokens, channels in SHAPES:
        side, repeats = int(tokens**0.5), 50 if tokens <= 16384 else 9
        w, u = torch.randn(channels), torch.randn(channels)
        k, v = (torch.randn(1, tokens, channels) for _ in range(2))
        error = check(w, u, k, v)
        image_k, image_v = (x.view(1, side, side, channels).transpose(1, 2) for x in (k, v))
        with torch.no_grad():
            floor = milliseconds(lambda: torch.exp(k - k.amax(1, keepdim=True)), repeats)
            forward = milliseconds(lambda: bi_wkv(w, u, k, v), repeats)
            columns = milliseconds(lambda: bi_wkv(w, u, image_k, image_v), repeats)
            plain = milliseconds(lambda: bi_wkv(w, u, k, v, backend="torch"), 3)
        arguments = [x.clone().requires_grad_() for x in (w, u, k, v)]
        y, gy = bi_wkv(*arguments), torch.randn_like(k)
        backward = milliseconds(
            lambda: torch.autograd.grad(y, arguments, gy, retain_graph=True), repeats
        )
        print(
            f"| {tokens} | {channels} | {error:.0e} | {shown(floor)} | {shown(forward)} | "
            f"{ratio(forward, floor)} | {shown(columns)} | {shown(backward)} | "
            f"{ratio(backward, floor)} | {shown(plain)} |",
            flush=True,
        )


def gpu_milliseconds(call: Callable[[], object], repeats: int = 30) -> list[float]:
    """Time `repeats` calls on the GPU, each between two events, after a warm-up."""
    for _ in range(5):
        call()
    marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    for start, end in marks:
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in marks]


def gigabytes_per_second(count: int, times: list[float]) -> float:
    return count / statistics.median(times) / 1e6


def on_cuda() -> None:
    torch.set_default_device("cuda")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    print(
        "| T | C | dtype | error | copy GB/s | forward | GB/s | % of copy | columns | backward | "
        "torch |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for tokens, channels in SHAPES:
        for dtype in LIMITS:
            row_on_cuda(tokens, channels, dtype)


def row_on_cuda(tokens: int, channels: int, dtype: torch.dtype) -> None:
    side = int(tokens**0.5)
    w, u = torch.randn(channels), torch.randn(channels)
    k, v = (torch.randn(1, tokens, channels, dtype=dtype) for _ in range(2))
    error = check(w, u, k, v)
    image_k, image_v = (x.view(1, side, side, channels).transpose(1, 2) for x in (k, v))
    moved = 3 * k.numel() * k.element_size()
    source = torch.empty(moved // 2, dtype=torch.uint8)
    target = torch.empty_like(source)
    with torch.no_grad():
        copy = gigabytes_per_second(moved, gpu_milliseconds(lambda: target.copy_(source)))
        forward = gpu_milliseconds(lambda: bi_wkv(w, u, k, v))
        columns = gpu_milliseconds(lambda: bi_wkv(w, u, image_k, image_v))
        plain = gpu_milliseconds(lambda: bi_wkv(w, u, k, v, backend="torch"), 3)
    arguments = [x.clone().requires_grad_() for x in (w, u, k, v)]
    y, gy = bi_wkv(*arguments), torch.randn_like(k)
    backward = gpu_milliseconds(lambda: torch.autograd.grad(y, arguments, gy, retain_graph=True))
    speed = gigabytes_per_second(moved, forward)
    name = str(dtype).removeprefix("torch.")
    print(
        f"| {tokens} | {channels} | {name} | {error:.0e} | {copy:.0f} | {shown(forward)} | "
        f"{speed:.0f} | {100 * speed / copy:.0f} | {shown(columns)} | {shown(backward)} | "
        f"{shown(plain)} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    torch.manual_seed(0)
    if parser.parse_args().device == "cuda":
        on_cuda()
    else:
        on_cpu()


if __name__ == "__main__":
    main()
