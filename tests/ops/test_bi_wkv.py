"""Every backend against the equation: golden values, lengths, widths, precisions, gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from restore_rwkv.ops import bi_wkv, reference, uni_wkv
from tests.helpers import GOLDEN
from tests.helpers.bi_wkv_cases import (
    BACKENDS,
    EVERYDAY_BACKENDS,
    NAMES,
    TOLERANCES,
    Inputs,
    is_interpreted,
    make_inputs,
    relative_rms,
    results,
    skip_if_slow,
    to_device,
    tolerance,
    truth,
)

# (T, C) around the chunks of 16 and 64 tokens, the blocks of 16 channels, the switch at T = 1024
SHAPES = [
    *((2, 1), (3, 17), (7, 48), (63, 3), (64, 16), (65, 15), (100, 17), (127, 48)),
    *((625, 3), (1023, 1), (1024, 3), (1025, 1), (1089, 2), (4097, 1)),
]


@pytest.mark.parametrize("backend", ["reference", *EVERYDAY_BACKENDS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", range(6))
def test_golden_values(case: int, dtype: torch.dtype, backend: str) -> None:
    skip_if_slow(backend, case, 5 if dtype == torch.float32 else 0)
    with np.load(GOLDEN / "bi_wkv_a.npz") as arrays:
        expected = {
            name: torch.from_numpy(arrays[f"{case}/{name}"])
            for name in ("w", "u", "k", "v", "gy", *NAMES)
        }
    inputs = Inputs(*(expected[name] for name in Inputs._fields)).to(dtype)
    for name, actual in results(inputs, backend).items():
        assert relative_rms(actual, expected[name]) < tolerance(dtype, name), name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("tokens", "channels"), SHAPES)
def test_agrees_with_the_equation(
    tokens: int, channels: int, dtype: torch.dtype, backend: str
) -> None:
    skip_if_slow(backend, tokens * channels, 2000 if dtype == torch.float32 else 200)
    shape = (2, tokens, channels)
    for name, actual in results(make_inputs(*shape).to(dtype), backend).items():
        wide = torch.promote_types(dtype, torch.float32)
        assert actual.dtype == (wide if name in ("gw", "gu") else dtype)
        assert relative_rms(actual, truth(*shape)[name]) < tolerance(dtype, name), name


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_one_token_attends_to_itself(dtype: torch.dtype, backend: str) -> None:
    inputs = make_inputs(3, 1, 17).to(dtype)
    actual = results(inputs, backend)
    torch.testing.assert_close(actual["y"], inputs.v)
    torch.testing.assert_close(actual["gv"], inputs.gy)
    for name in ("gw", "gu", "gk"):
        assert actual[name].abs().max() < 2e-6


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("w", [2.0, 400.0])  # 400: one token per chunk
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 5, 3), (1, 70, 2)])
def test_gradients_are_the_slopes_of_the_output(
    shape: tuple[int, int, int], w: float, backend: str
) -> None:
    skip_if_slow(backend, shape[1], 60)
    leaves = [to_device(x, backend).requires_grad_() for x in make_inputs(*shape, w=w)[:4]]
    along_one_direction = is_interpreted(backend)
    assert torch.autograd.gradcheck(
        lambda *x: bi_wkv(*x, backend=backend),
        leaves,
        fast_mode=along_one_direction,
        check_undefined_grad=not along_one_direction,
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_262144_tokens_keep_the_precision(backend: str) -> None:
    """Compares with rows of the equation, and gradients with the same backend in float64."""
    skip_if_slow(backend, 262_144)
    inputs = make_inputs(1, 262_144, 2)
    rows = torch.tensor([0, 1, 4097, 131_071, 262_143])
    expected = results(inputs, backend)
    actual = results(inputs.to(torch.float32), backend)
    exact = reference.bi_wkv_rows(*inputs[:4], rows)
    assert relative_rms(expected["y"][:, rows], exact) < 1e-13
    assert relative_rms(actual["y"], expected["y"]) < 1e-5
    for name in ("gw", "gu", "gk", "gv"):
        assert relative_rms(actual[name], expected[name]) < 1e-4, name


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("shape", [(2, 1, 3), (2, 100, 17), (1, 1100, 2)])
def test_uni_wkv_sees_no_later_token(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    inputs = make_inputs(*shape)
    expected = uni_wkv(*inputs[:4], backend="reference")
    actual = uni_wkv(*inputs.to(dtype)[:4], backend="torch")
    assert relative_rms(actual, expected) < tolerance(dtype, "y")
    later = inputs._replace(v=inputs.v.clone())
    later.v[:, shape[1] // 2 + 1 :] += 1
    unchanged = uni_wkv(*later[:4])[:, : shape[1] // 2 + 1]
    torch.testing.assert_close(unchanged, expected[:, : shape[1] // 2 + 1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_call_twice_gives_the_same_bits(backend: str) -> None:
    inputs = make_inputs(2, 100 if is_interpreted(backend) else 1100, 17).to(torch.float32)
    first, second = (results(inputs, backend) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in NAMES)
