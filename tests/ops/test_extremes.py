"""Any finite input gives a finite output; steep decays and huge keys stay exact."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from restore_rwkv.ops import reference
from tests.helpers.bi_wkv_cases import (
    BACKENDS,
    Inputs,
    is_interpreted,
    make_inputs,
    output,
    relative_rms,
    results,
    skip_if_slow,
)


def mixture(generator: torch.Generator, sizes: list[float], *shape: int) -> Tensor:
    """Draw from sizes, with random signs."""
    choice = torch.randint(len(sizes), shape, generator=generator)
    sign = 2 * torch.randint(2, shape, generator=generator) - 1
    return torch.tensor(sizes, dtype=torch.float64)[choice] * sign


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("tokens", [1, 2, 5, 64, 200, 2000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_finite_inputs_give_finite_outputs(dtype: torch.dtype, tokens: int, backend: str) -> None:
    skip_if_slow(backend, tokens)
    largest = torch.finfo(dtype).max
    sizes = [0.0, torch.finfo(dtype).tiny, 1.0, 1e3, largest**0.5, largest / 1000, largest]
    generator = torch.Generator().manual_seed(tokens)
    for draw in range(0, 24, 9 if is_interpreted(backend) else 1):
        kinds = [sizes if draw >> i & 1 else sizes[-1:] for i in range(4)]
        shapes = [(5,), (5,), (2, tokens, 5), (2, tokens, 5)]
        if draw >= 16:  # moderate decays, which take the other code path
            kinds[:2] = [sizes[:3]] * 2
        inputs = [
            mixture(generator, kind, *shape).to(dtype)
            for kind, shape in zip(kinds, shapes, strict=True)
        ]
        assert output(backend, *inputs).isfinite().all(), draw


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("tokens", [1, 50, 1500])
def test_the_largest_values_are_kept(tokens: int, backend: str) -> None:
    skip_if_slow(backend, tokens)
    inputs = make_inputs(2, tokens, 17).to(torch.float32)
    v = torch.full_like(inputs.v, torch.finfo(torch.float32).max)
    torch.testing.assert_close(output(backend, *inputs[:3], v), v)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_with_the_largest_values(backend: str) -> None:
    """Sums of such values overflow in float32; outputs and gradients do not."""
    inputs = make_inputs(2, 200, 17)
    inputs = inputs._replace(v=inputs.v.clamp(-1, 1) * 2.0**127, gy=inputs.gy * 2.0**-20)
    expected = results(inputs, "reference")
    for name, actual in results(inputs.to(torch.float32), backend).items():
        assert relative_rms(actual, expected[name]) < 4e-6, name


def steep_inputs(w: float, k: float, tokens: int, seed: int) -> Inputs:
    """Draw float32 inputs: 4 channels, w and u of one size, keys of another."""
    generator = torch.Generator().manual_seed(seed)
    sizes, shapes = (w, w, k, 1.0, 1.0), [(4,)] * 2 + [(1, tokens, 4)] * 3
    return Inputs(
        *(
            size * torch.randn(shape, generator=generator)
            for size, shape in zip(sizes, shapes, strict=True)
        )
    )


# Size of w and u, size of k, largest error of the output and of a gradient, both measured with
# `torch`, which rounds exponents to float32. Where gradients cancel completely, they need only be
# finite.
STEEP = [
    *((60.0, 5.0, 4e-6, 1e-4), (300.0, 5.0, 4e-6, 1e-4), (3e3, 10.0, 4e-6, 1e-3)),
    *((1e6, 1e4, 5e-6, math.inf), (1e8, 1e6, 5e-6, math.inf)),
]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("w", "k", "y_limit", "g_limit"), STEEP)
def test_steep_decays_and_far_keys(
    w: float, k: float, y_limit: float, g_limit: float, backend: str, seed: int
) -> None:
    skip_if_slow(backend, seed, 0)
    inputs = steep_inputs(w, k, 150 if is_interpreted(backend) else 700, seed)
    expected = results(Inputs(*(x.double() for x in inputs)), "reference")
    for name, actual in results(inputs, backend).items():
        assert actual.isfinite().all()
        limit = y_limit if name == "y" else g_limit
        assert relative_rms(actual, expected[name]) < limit, name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(4))
def test_exponents_of_a_million_do_not_drift(seed: int, backend: str) -> None:
    """Uses over 5,000 chunks of one token, each of which rounds the scale of its sums."""
    skip_if_slow(backend, 5000)
    inputs = steep_inputs(1e6, 1e4, 5000, seed)
    rows = torch.arange(0, 5000, 25)
    expected = reference.bi_wkv_rows(*(x.double() for x in inputs[:4]), rows)
    actual = output(backend, *inputs[:4])[:, rows]
    assert relative_rms(actual, expected) < {"torch": 1e-4, "cpu": 1e-7, "triton": 1e-7}[backend]


def test_huge_values_of_one_channel_leave_the_others_exact() -> None:
    inputs = make_inputs(2, 200, 17)
    inputs.v[..., 0] *= 2.0**100
    inputs.v[..., 1] *= 2.0**-70
    expected = results(inputs, "reference")
    actual = results(inputs.to(torch.float32), "auto")
    for name in ("y", "gk", "gv"):
        for channel in (0, 1, 2):
            error = relative_rms(actual[name][..., channel], expected[name][..., channel])
            assert error < 1e-5, (name, channel)
