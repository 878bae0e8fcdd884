"""Attention as cumulative sums, the form that ONNX holds, against the equation."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from restore_rwkv.model.export.graph import TRANSLATIONS
from restore_rwkv.ops import bi_wkv, cumulative, reference
from restore_rwkv.ops.cumulative import LARGEST_BONUS, STEEPEST
from tests.helpers import GOLDEN
from tests.helpers.bi_wkv_cases import make_inputs, relative_rms, tolerance

DTYPES = [torch.float32, torch.float64]
# (B, H, W, C): single rows and columns, odd sides, and lengths of the shapes of other backends.
SHAPES = [
    *((1, 1, 1, 3), (2, 1, 2, 1), (2, 7, 1, 17), (2, 1, 65, 15), (3, 9, 7, 48), (2, 25, 25, 3)),
    *((2, 33, 31, 1), (1, 1, 1600, 2)),
]


def by_equation(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The equation in float64, for rows of tokens."""
    w, u, k, v = (x.double() for x in (w, u, k, v))
    return reference.bi_wkv(w, u, k.flatten(1, 2), v.flatten(1, 2)).reshape(k.shape)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_agrees_with_the_equation(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    inputs = make_inputs(*shape)
    expected = by_equation(*inputs[:4])
    y = cumulative.bi_wkv(*inputs.to(dtype)[:4])
    assert (y.shape, y.dtype) == (inputs.v.shape, dtype)
    assert relative_rms(y, expected) < tolerance(dtype, "y")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", range(6))
def test_golden_values(case: int, dtype: torch.dtype) -> None:
    with np.load(GOLDEN / "bi_wkv_a.npz") as arrays:
        w, u, k, v, y = (torch.from_numpy(arrays[f"{case}/{name}"]) for name in "wukvy")
    assert w.abs().max() <= STEEPEST
    assert u.abs().max() <= LARGEST_BONUS
    k, v = (x.to(dtype).unsqueeze(1) for x in (k, v))
    found = cumulative.bi_wkv(w.to(dtype), u.to(dtype), k, v)
    assert relative_rms(found.squeeze(1), y) < tolerance(dtype, "y")


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_one_token_attends_to_itself(sign: float) -> None:
    k, v = torch.full((1, 1, 1, 2), 1e30), torch.tensor([3.0, -1e10]).reshape(1, 1, 1, 2)
    w, u = torch.full((2,), sign * STEEPEST), torch.full((2,), sign * LARGEST_BONUS)
    torch.testing.assert_close(cumulative.bi_wkv(w, u, k, v), v)


def hostile(steepness: float, spread: float) -> list[Tensor]:
    """Inputs of the largest decay, with one key far above all others at an end of the image."""
    generator = torch.Generator().manual_seed(0)
    w = torch.tensor([1.0, 1.0, -1.0, -1.0]) * steepness
    u = torch.tensor([1.0, -1.0, 1.0, -1.0]) * LARGEST_BONUS
    k = torch.randn(2, 12, 20, 4, generator=generator)
    k[0, -1, -1] += spread
    k[1, 0, 0] += spread
    return [w, u, k, torch.randn(k.shape, generator=generator)]


@pytest.mark.parametrize("spread", [0.0, 20.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 120.0, 500.0])
def test_no_keys_are_too_far_apart_at_the_bound(spread: float) -> None:
    """At each token, not on average: the tokens at the other end lose most."""
    inputs = hostile(STEEPEST, spread)
    expected = by_equation(*inputs)
    error = (cumulative.bi_wkv(*inputs).double() - expected).abs()
    assert float(error.max()) < 5e-6  # values are of the order of 1; 1.6e-6 was measured


def test_keys_that_are_far_apart_are_lost_beyond_the_bound() -> None:
    """So that weights beyond it have to be refused."""
    errors = []
    for spread in (60.0, 70.0, 80.0):
        inputs = hostile(2 * STEEPEST, spread)
        errors.append((cumulative.bi_wkv(*inputs).double() - by_equation(*inputs)).abs().max())
    assert not float(max(errors)) < 1e-2


@pytest.mark.parametrize("size", [1.0, 10.0, 100.0, 1000.0])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_keys_of_any_size_agree(size: float, sign: float) -> None:
    inputs = make_inputs(2, 11, 13, 6, k=size).to(torch.float32)
    w, u = (torch.full((6,), sign * x) for x in (STEEPEST, 0.7 * STEEPEST))
    y = cumulative.bi_wkv(w, u, inputs.k, inputs.v)
    assert relative_rms(y, by_equation(w, u, inputs.k, inputs.v)) < tolerance(torch.float32, "y")


def test_only_recorded_calls_run_in_this_form() -> None:
    """Beside it, "auto" takes its usual backend, whose results have other rounding."""
    inputs = make_inputs(1, 17, 19, 5).to(torch.float32)[:4]
    with cumulative.recorded():
        assert torch.equal(bi_wkv(*inputs), cumulative.bi_wkv(*inputs))
        k, v = (x.flatten(1, 2) for x in inputs[2:])
        assert bi_wkv(*inputs[:2], k, v).shape == k.shape
        out = inputs[3].clone()
        assert bi_wkv(*inputs, out=out) is out
        assert torch.equal(out, cumulative.bi_wkv(*inputs))
    assert not torch.equal(bi_wkv(*inputs), cumulative.bi_wkv(*inputs))


class _Attention(torch.nn.Module):
    def forward(self, w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return bi_wkv(w, u, k, v)


@pytest.mark.slow
def test_one_onnx_graph_serves_every_size(tmp_path: Path) -> None:
    path = tmp_path / "bi_wkv.onnx"
    images, rows, columns = (torch.export.Dim(name, min=1, max=512) for name in "bhw")
    dynamic = {0: images, 1: rows, 2: columns}
    with cumulative.recorded(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            *(_Attention(), make_inputs(2, 3, 4, 5).to(torch.float32)[:4], path),
            dynamo=True,
            verbose=False,
            opset_version=18,
            dynamic_shapes=({}, {}, dynamic, dynamic),
            custom_translation_table=TRANSLATIONS,
        )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for shape in [(1, 1, 1, 5), (2, 3, 4, 5), (3, 25, 1, 5), (1, 40, 33, 5)]:
        inputs = make_inputs(*shape).to(torch.float32)
        feed = {x.name: value.numpy() for x, value in zip(session.get_inputs(), inputs)}  # noqa: B905
        (y,) = session.run(None, feed)
        expected = by_equation(*inputs[:4])
        assert relative_rms(torch.from_numpy(y), expected) < tolerance(torch.float32, "y")
