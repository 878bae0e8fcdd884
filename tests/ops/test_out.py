"""Tests of `out`: results written to the caller's tensor, also over v."""

from __future__ import annotations

import pytest
import torch

from restore_rwkv.errors import OperatorError
from restore_rwkv.ops import bi_wkv
from tests.helpers.bi_wkv_cases import make_inputs, tolerance, truth

BACKENDS = ["auto", "torch", "reference"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("over", [False, True])
@pytest.mark.parametrize("columns", [False, True])
def test_the_result_goes_where_it_is_wanted(
    columns: bool, over: bool, dtype: torch.dtype, backend: str
) -> None:
    w, u, k, v, _ = make_inputs(2, 70, 9, 17).to(dtype)
    if columns:
        k, v = k.transpose(1, 2), v.transpose(1, 2)
    expected = bi_wkv(w, u, k, v, backend=backend)
    out = v if over else torch.full_like(v, torch.nan)
    assert bi_wkv(w, u, k, v, backend=backend, out=out) is out
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sequence_too(backend: str) -> None:
    shape = (2, 127, 17)
    w, u, k, v, _ = make_inputs(*shape).to(torch.float32)
    assert bi_wkv(w, u, k, v, backend=backend, out=v) is v
    expected = truth(*shape)["y"]
    assert (v - expected).norm() / expected.norm() < tolerance(torch.float32, "y")


def test_values_whose_sums_overflow_are_replaced_all_the_same() -> None:
    w, u, k, _, _ = make_inputs(2, 200, 17).to(torch.float32)
    v = torch.full_like(k, torch.finfo(torch.float32).max)
    expected = v.clone()
    bi_wkv(w, u, k, v, out=v)
    torch.testing.assert_close(v, expected)


def test_errors_say_what_is_wrong() -> None:
    w, u, k, v, _ = make_inputs(1, 5, 3).to(torch.float32)
    with pytest.raises(OperatorError, match=r"out is \(1, 4, 3\).*must be like v: \(1, 5, 3\)"):
        bi_wkv(w, u, k, v, out=v[:, :4])
    with pytest.raises(OperatorError, match=r"float64.*must be like v"):
        bi_wkv(w, u, k, v, out=v.double())
    with pytest.raises(OperatorError, match=r"gradients are recorded.*no_grad"):
        bi_wkv(w.requires_grad_(), u, k, v, out=v)
    square = make_inputs(1, 4, 4, 3).to(torch.float32)
    for out in (v[:, :1].clone().expand(1, 5, 3), k):
        with torch.no_grad(), pytest.raises(OperatorError, match=r"shares memory.*give v itself"):
            bi_wkv(w, u, k, v, out=out)
    with torch.no_grad(), pytest.raises(OperatorError, match="another part of v"):
        bi_wkv(*square[:4], out=square.v.transpose(1, 2))


def test_autograd_sees_the_change() -> None:
    w, u, k, v, _ = make_inputs(1, 5, 3).to(torch.float32)
    y = v.requires_grad_().exp()
    with torch.no_grad():
        bi_wkv(w, u, k, k, out=y.detach())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
