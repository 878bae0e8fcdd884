"""What the operator tests share: backends, tolerances, inputs and the truth in float64."""

from __future__ import annotations

import functools
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from restore_rwkv.ops import available_backends, bi_wkv
from restore_rwkv.ops.gpu import launch as gpu

_BACKENDS = available_backends()
_CPU = pytest.param("cpu", marks=pytest.mark.skipif(not _BACKENDS["cpu"], reason="not built here"))
_NO_TRITON = pytest.mark.skipif(not _BACKENDS["triton"], reason="no Triton")

BACKENDS = [
    "torch",
    _CPU,
    # Without a GPU it runs in an interpreter, a thousand times slower.
    pytest.param("triton", marks=[_NO_TRITON, pytest.mark.slow]),
]
EVERYDAY_BACKENDS = ["torch", _CPU, pytest.param("triton", marks=_NO_TRITON)]
"""The same for the tests of every day, which see each backend at least once."""

NAMES = ("y", "gw", "gu", "gk", "gv")

# Largest relative RMS error against the equation in float64: of the output, of each gradient.
# Twice what was measured on x86-64 with AVX-512. In float32 the worst gradient is that of u at one
# channel, a sum that cancels; reduced precisions are bound by the rounding of the result itself.
TOLERANCES = {
    torch.float64: {"y": 1e-14, "g": 2e-13},
    torch.float32: {"y": 2e-6, "g": 4e-5},
    torch.bfloat16: {"y": 4e-3, "g": 4e-3},
    torch.float16: {"y": 5e-4, "g": 5e-4},
}


def tolerance(dtype: torch.dtype, name: str) -> float:
    return TOLERANCES[dtype][name[0]]


class Inputs(NamedTuple):
    w: Tensor
    u: Tensor
    k: Tensor
    v: Tensor
    gy: Tensor

    def to(self, dtype: torch.dtype) -> Inputs:
        """Convert; parameters of reduced precision stay in float32."""
        wide = dtype if dtype.itemsize >= 4 else torch.float32
        return Inputs(self.w.to(wide), self.u.to(wide), *(x.to(dtype) for x in self[2:]))


def make_inputs(*shape: int, seed: int = 0, w: float = 3.0, k: float = 1.5) -> Inputs:
    """Draw inputs for k of `shape`, float64, exactly representable in every precision."""
    generator = torch.Generator().manual_seed(seed)

    def draw(size: float, *shape: int) -> Tensor:
        return (size * torch.randn(*shape, generator=generator)).half().bfloat16().double()

    return Inputs(draw(w, shape[-1]), draw(w, shape[-1]), *(draw(x, *shape) for x in (k, 1, 1)))


def is_interpreted(backend: str) -> bool:
    """Whether a backend runs in Triton's interpreter: for a few tokens only."""
    return backend == "triton" and gpu.interpreted()


def skip_if_slow(backend: str, size: int, most: int = 130) -> None:
    if is_interpreted(backend) and size > most:
        pytest.skip("too slow in Triton's interpreter")


def to_device(x: Tensor, backend: str) -> Tensor:
    """Move to where a backend runs."""
    return x.cuda() if backend == "triton" and not gpu.interpreted() else x


def output(backend: str, *inputs: Tensor) -> Tensor:
    """Return y, on the CPU."""
    return bi_wkv(*(to_device(x, backend) for x in inputs), backend=backend).cpu()


def results(inputs: Inputs, backend: str) -> dict[str, Tensor]:
    """Return the output and the four gradients, on the CPU."""
    leaves = [to_device(x.detach(), backend).requires_grad_() for x in inputs[:4]]
    y = bi_wkv(*leaves, backend=backend)
    gradients = torch.autograd.grad(y, leaves, to_device(inputs.gy, backend))
    return {name: x.detach().cpu() for name, x in zip(NAMES, (y, *gradients), strict=True)}


@functools.cache
def truth(*shape: int) -> dict[str, Tensor]:
    """Return what the equation gives for `make_inputs(*shape)`, in float64."""
    return results(make_inputs(*shape), "reference")


def relative_rms(actual: Tensor, expected: Tensor) -> float:
    """Root mean square error relative to `expected`; absolute where that is 0, as gw at T = 1."""
    size = expected.norm()
    return float((actual.double() - expected).norm() / torch.where(size > 1e-12, size, 1.0))
