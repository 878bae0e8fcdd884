"""Figures of the operator and the network on a GPU, as JSON: a stage of `benchmarks.on_gpu`.

    python -m benchmarks.gpu_rows operator operator.json --device cuda [--published FOLDER]
    python -m benchmarks.gpu_rows network network.json --device cuda

Each row is checked before it is timed, and the file is written after each row. Times are
[median, least, most] in ms: by CUDA events on a GPU, by the clock on a CPU. A copy within the
device, of as many bytes as the operator reads and writes at least, stands beside the operator.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import gpu_published
from benchmarks.bi_wkv import LIMITS, SHAPES, gpu_milliseconds
from benchmarks.timing import milliseconds
from benchmarks.training_step import training_step
from restore_rwkv.io import atomic_file
from restore_rwkv.model import PRESETS, RestoreRWKV
from restore_rwkv.ops import available_backends, bi_wkv
from restore_rwkv.ops.reference import bi_wkv_rows

Shape = tuple[int, int, int]
Operator = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

# Batch, tokens, channels; the last two as in training.
_SHAPES = (*((1, *shape) for shape in SHAPES), (32, 16384, 32), (32, 4096, 64))
_SHAPES_ON_CPU = ((1, 256, 384), (2, 4096, 24))  # so that a trial there takes seconds
_STEEPEST = 1e-3  # largest relative error of a gradient in float32, for any backend of ours
_NETWORKS = ("light", "patch2", "base")
_EXACT, _REDUCED = 1e-4, 3e-2  # largest errors of the residual: float32; TF32 and bfloat16


class Rows:
    """Rows of a JSON file that is complete after each of them.

    Args:
        path: file to write.
        until: time, as of `time.time`, after which no further row is started.
    """

    def __init__(self, path: Path, until: float) -> None:
        self.path, self.until = path, until
        self.rows: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> None:
        """Add a row with what `measure` returns, or the reason why it has no figures."""
        if time.time() > self.until:
            row |= {"left_out": "no time left"}
        else:
            try:
                row |= measure()
            except Exception as error:  # a row that fails must not cost the others
                row |= {"left_out": f"{type(error).__name__}: {error}".partition("\n")[0]}
        self.rows.append(row)
        print(json.dumps(row), flush=True)
        write_json(self.path, self.rows)


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def operator_rows(rows: Rows, device: str, published: Path | None) -> None:
    """Measure every backend at every shape; the published kernel last, since it may fail."""
    torch.set_default_device(device)
    wanted = ("triton", "torch") if device == "cuda" else ("cpu", "torch")
    for name in wanted:
        if available_backends()[name]:
            _rows_of(rows, name, functools.partial(bi_wkv, backend=name), device)
        else:
            rows.add({"backend": name}, lambda: {"left_out": "cannot run here"})
    if published is not None:
        try:
            operator = gpu_published.operator(published)
        except Exception as error:  # of a compiler, say
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            rows.add({"backend": "published"}, lambda: {"left_out": reason})
        else:
            _rows_of(rows, "published", operator, device)


def _rows_of(rows: Rows, name: str, operator: Operator, device: str) -> None:
    """Measure one backend."""
    rows.add({"backend": name, "check": "gradients"}, lambda: gradient_errors(operator))
    dtypes = (torch.float32,) if name == "published" else tuple(LIMITS)
    shapes = _SHAPES if device == "cuda" else _SHAPES_ON_CPU
    for shape, dtype in itertools.product(shapes, dtypes):
        row = dict(zip(("batch", "tokens", "channels"), shape, strict=True))
        named = {"backend": name, **row, "dtype": str(dtype).removeprefix("torch.")}
        rows.add(named, lambda: operator_row(operator, name, shape, dtype, device))


def gradient_errors(operator: Operator) -> dict[str, Any]:
    """Return the relative errors of output and gradients against float64, at a small size."""
    w, u = torch.randn(2, 16).double()
    k, v, gy = torch.randn(3, 2, 300, 16).double()
    plain = functools.partial(bi_wkv, backend="reference")
    found, truth = (
        _with_gradients(of, [x.to(kind) for x in (w, u, k, v)], gy.to(kind))
        for of, kind in ((operator, torch.float32), (plain, torch.float64))
    )
    errors = {
        name: float((a.double() - b).norm() / b.norm())
        for name, a, b in zip(("y", "gw", "gu", "gk", "gv"), found, truth, strict=True)
    }
    return {"errors": errors, "correct": max(errors.values()) < _STEEPEST}


def _with_gradients(operator: Operator, inputs: list[Tensor], gy: Tensor) -> list[Tensor]:
    leaves = [x.requires_grad_() for x in inputs]
    y = operator(*leaves)
    return [y.detach(), *torch.autograd.grad(y, leaves, gy)]


def operator_row(
    operator: Operator, name: str, shape: Shape, dtype: torch.dtype, device: str
) -> dict[str, Any]:
    """Check and time an operator beside a copy of the same bytes."""
    batch, tokens, channels = shape
    side = int(tokens**0.5)
    w, u = torch.randn(2, channels)
    k, v, gy = (torch.randn(shape, dtype=dtype) for _ in range(3))
    places = torch.randint(0, tokens, (64,))
    truth = bi_wkv_rows(*(x[..., :8].double() for x in (w, u, k[:1], v[:1])), places)
    with torch.no_grad():
        error = operator(w, u, k, v)[:1, places, :8].double() - truth
    relative = float(error.norm() / truth.norm())
    if not relative < LIMITS[dtype] and name != "published":
        return {"error": relative, "left_out": f"error above {LIMITS[dtype]:g}"}
    moved = 3 * k.numel() * k.element_size()
    source = torch.empty(moved // 2, dtype=torch.uint8)
    target = torch.empty_like(source)
    clock = _clock(device, 3 if name == "torch" else 30)
    row: dict[str, Any] = {"error": relative, "bytes": moved}
    with torch.no_grad():
        row["copy_ms"] = clock(lambda: target.copy_(source))
        row["forward_ms"] = clock(lambda: operator(w, u, k, v))
        if name != "published":  # which knows no strides
            image_k, image_v = (x.view(batch, side, side, channels) for x in (k, v))
            turned = (image_k.transpose(1, 2), image_v.transpose(1, 2))
            row["columns_ms"] = clock(lambda: operator(w, u, *turned))
    leaves = [x.clone().requires_grad_() for x in (w, u, k, v)]
    y = operator(*leaves)
    row["backward_ms"] = clock(lambda: torch.autograd.grad(y, leaves, gy, retain_graph=True))
    for what in ("copy", "forward"):
        row[f"{what}_gb_s"] = moved / row[f"{what}_ms"][0] / 1e6
    return row


def _clock(device: str, repeats: int) -> Callable[[Callable[[], object]], list[float]]:
    """Return a function that times a call: [median, least, most] in ms."""

    def times(call: Callable[[], object]) -> list[float]:
        timed = gpu_milliseconds if device == "cuda" else milliseconds
        found = timed(call, repeats if device == "cuda" else min(repeats, 5))
        return [statistics.median(found), min(found), max(found)]

    return times


def network_rows(rows: Rows, device: str) -> None:
    """Measure inference as it is, and a training step; then captured and compiled inference."""
    size, batch = (256, 32) if device == "cuda" else (64, 2)
    networks = _NETWORKS if device == "cuda" else _NETWORKS[:2]
    for mode in ("float32", "TF32", "graph"):
        for name in networks:
            row = {"network": name, "what": "inference", "mode": mode, "size": size, "batch": 1}
            rows.add(row, lambda: inference_row(name, mode, size, device))
    for precision in ("float32", "TF32", "bf16-mixed"):
        for name in networks[:2]:
            row = {"network": name, "what": "training step", "mode": precision}
            row |= {"size": size // 2, "batch": batch}
            rows.add(row, lambda: step_row(name, precision, batch, size // 2, device))
    for name in networks[:2]:  # last, since the compiler may take a minute
        row = {"network": name, "what": "inference", "mode": "compiled", "size": size, "batch": 1}
        rows.add(row, lambda: inference_row(name, "compiled", size, device))


def inference_row(name: str, mode: str, size: int, device: str) -> dict[str, Any]:
    """Check a forward pass against the CPU and time it."""
    if device == "cpu" and mode != "float32":
        return {"left_out": "needs a CUDA GPU"}
    torch.manual_seed(0)
    network = RestoreRWKV(PRESETS[name]).merged()
    image = torch.rand(1, 1, size, size)
    with torch.no_grad():
        truth = network(image)
        _allow_tf32(mode == "TF32")
        network, moved = network.to(device), image.to(device)
        run, start = _as_mode(network, moved, mode), time.perf_counter()
        error = float((run(moved).cpu() - truth).norm() / (truth - image).norm())
        row = {"error": error, "first_call_s": time.perf_counter() - start}
        if not error < (_REDUCED if mode == "TF32" else _EXACT):
            return {**row, "left_out": "differs from the CPU"}
        _forget_peak(device)
        row["ms"] = _clock(device, 30)(lambda: run(moved))
        return {**row, "peak_mib": _peak(device)}


def _as_mode(network: nn.Module, image: Tensor, mode: str) -> Callable[[Tensor], Tensor]:
    """Return the network's forward pass as it is, compiled, or captured in a CUDA graph."""
    if mode == "compiled":
        return torch.compile(network)
    if mode != "graph":
        return network
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # compiles the kernels and fills the allocator
            network(image)
    torch.cuda.current_stream().wait_stream(stream)
    given, graph = image.clone(), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = network(given)

    def replay(x: Tensor) -> Tensor:
        given.copy_(x)
        graph.replay()
        return result

    return replay


def step_row(name: str, mode: str, batch: int, size: int, device: str) -> dict[str, Any]:
    """Time training steps of L1 loss and Adam; the loss must fall."""
    if device == "cpu" and mode == "TF32":
        return {"left_out": "needs a CUDA GPU"}
    _allow_tf32(mode == "TF32")
    torch.manual_seed(0)
    _forget_peak(device)
    precision = mode if mode == "bf16-mixed" else "32-true"
    network = RestoreRWKV(PRESETS[name]).train().to(device)
    step = training_step(network, batch, size, {"device": device, "precision": precision})
    losses = [step() for _ in range(3)]
    if not losses[2] < losses[0] < float("inf"):
        return {"left_out": f"the loss does not fall: {losses}"}
    return {"ms": _clock(device, 10)(step), "peak_mib": _peak(device)}


def _allow_tf32(allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def _forget_peak(device: str) -> None:
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak(device: str) -> float | None:
    return torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else None


def main(arguments: list[str] | None = None) -> None:
    """Write one of the two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=("operator", "network"))
    parser.add_argument("out", type=Path, help="JSON file to write")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--published", type=Path, help="folder of the published kernel's source")
    parser.add_argument("--until", type=float, default=float("inf"), help="as of time.time")
    words = parser.parse_args(arguments)
    torch.manual_seed(0)
    rows = Rows(words.out, words.until)
    if words.table == "operator":
        operator_rows(rows, words.device, words.published)
    else:
        network_rows(rows, words.device)


if __name__ == "__main__":
    main()
