"""Tests of the Triton kernels only: other layouts, compilation, choice, registration."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from restore_rwkv.errors import OperatorError
from restore_rwkv.ops import available_backends, bi_wkv, dispatch
from restore_rwkv.ops.gpu import launch as gpu
from tests.helpers import ROOT
from tests.helpers.bi_wkv_cases import (
    Inputs,
    make_inputs,
    output,
    relative_rms,
    results,
    to_device,
    tolerance,
    truth,
)

needs_triton = pytest.mark.skipif(not available_backends()["triton"], reason="no Triton")
W, K = torch.zeros(4), torch.zeros(2, 6, 4)


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize("size", [(11, 16), (11, 17), (30, 5)])  # chunks cross rows: 0, 1, often
def test_the_cut_of_real_gpus_along_columns(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Covers strided columns, several pieces, and an incomplete last chunk."""
    monkeypatch.setattr(gpu, "_INTERPRETED", gpu._LAYOUTS)
    inputs = make_inputs(1, *reversed(size), 3).to(torch.float32)
    columns = inputs._replace(
        **{name: getattr(inputs, name).transpose(1, 2) for name in ("k", "v", "gy")}
    )
    expected = results(Inputs(*(x.double() for x in columns)), "torch")
    for name, actual in results(columns, "triton").items():
        assert relative_rms(actual, expected[name]) < tolerance(torch.float32, name), name


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize("w", [3.0, 3e4])  # 3e4: too steep to scan several pieces at once
def test_many_groups_of_pieces(w: float, monkeypatch: pytest.MonkeyPatch) -> None:
    small = gpu._Layout(chunk=2, chunks=4, block=16, registers=0)
    monkeypatch.setattr(gpu, "_INTERPRETED", gpu._Layouts(small, small, small))
    monkeypatch.setattr(gpu, "_GROUP", 4)
    inputs = make_inputs(1, 60, 2, w=w)
    expected = results(inputs, "reference")
    for name, actual in results(inputs.to(torch.float32), "triton").items():
        assert relative_rms(actual, expected[name]) < 1e-3, name
    assert relative_rms(results(inputs, "triton")["gk"], expected["gk"]) < 1e-12


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize("w", [3.0, 5000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_output_may_take_the_place_of_the_values(dtype: torch.dtype, w: float) -> None:
    inputs = make_inputs(2, 100, 3, w=w).to(dtype)
    moved = [to_device(x, "triton") for x in inputs[:4]]
    expected = output("triton", *inputs[:4])
    y = bi_wkv(*moved, backend="triton", out=moved[3])
    assert y.data_ptr() == moved[3].data_ptr()
    assert torch.equal(y.cpu(), expected)


@pytest.mark.slow
@needs_triton
def test_the_registered_operators_keep_their_promises() -> None:
    inputs = Inputs(*(to_device(x, "triton") for x in make_inputs(1, 3, 2, 2).to(torch.float32)))
    k = inputs.k.transpose(1, 2)
    v = torch.cat([inputs.v, inputs.v], -1)[..., 1:3].transpose(1, 2)
    leaves = [x.clone().requires_grad_() for x in (inputs.w, inputs.u)]
    torch.library.opcheck(gpu.operator, (*leaves, k, v.detach().requires_grad_()))
    _, *state = gpu.forward(inputs.w, inputs.u, k, v)
    gy = inputs.gy.transpose(1, 2)
    torch.library.opcheck(gpu.backward_operator, (gy, inputs.w, inputs.u, k, v, *state))


@pytest.mark.slow
@needs_triton
def test_second_derivatives_are_refused() -> None:
    leaves = [to_device(x, "triton").requires_grad_() for x in make_inputs(1, 5, 2)[:4]]
    y = bi_wkv(*leaves, backend="triton")
    (gradient,) = torch.autograd.grad(y.sum(), leaves[3], create_graph=True)
    with pytest.raises(RuntimeError, match="bi_wkv_triton_backward"):
        gradient.sum().backward()


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("tokens", [625])
def test_longer_sequences(tokens: int) -> None:
    shape = (1, tokens, 3)
    for name, actual in results(make_inputs(*shape).to(torch.float32), "triton").items():
        assert relative_rms(actual, truth(*shape)[name]) < tolerance(torch.float32, name), name


@pytest.fixture
def compiled(request: pytest.FixtureRequest) -> Path:
    """Cache of kernels compiled in all tests and earlier runs; changed ones are recompiled."""
    assert request.config.cache is not None
    return request.config.cache.mkdir("triton")


@pytest.mark.skipif(not gpu.installed(), reason="no Triton")
@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("90", "float32", "4", "17"),
        ("80", "bfloat16", "4", "16", "3"),
        ("90", "float32", "16", "17"),
    ],
)
def test_compiles_for_gpus_that_are_not_here(arguments: tuple[str, ...], compiled: Path) -> None:
    """Uses 4 tokens per chunk, not 16: compile time grows with the square of their number."""
    script = ROOT / "tests" / "helpers" / "compile_for_gpu.py"
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(compiled)}
    run = subprocess.run(
        [sys.executable, script, *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    shared = dict(line.split() for line in run.stdout.splitlines())
    assert shared.keys() == {
        *("summarise", "carry", "finish"),
        *("summarise_gradients", "finish_gradients"),
    }
    assert max(map(int, shared.values())) < 100_000


def test_triton_is_imported_at_its_first_use() -> None:
    code = (
        "import sys, torch, restore_rwkv; from restore_rwkv.ops import available_backends, bi_wkv;"
        "k = torch.zeros(1, 3, 2); bi_wkv(k[0, 0], k[0, 0], k, k); available_backends();"
        "assert not [x for x in sys.modules if x.split('.')[0] == 'triton']"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_automatic_only_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "available", lambda: True)
    assert dispatch._fastest(torch.device("cuda")) == "triton"
    assert {dispatch._fastest(torch.device(x)) for x in ("xpu", "meta", "mps")} == {"torch"}
    assert dispatch._fastest(torch.device("cpu")) != "triton"


def test_cuda_without_triton_falls_to_torch_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gpu, "available", lambda: False)
    dispatch._log_choice.cache_clear()
    assert dispatch._choose("auto", torch.device("cuda")) == "torch"
    assert dispatch._choose("auto", torch.device("cuda")) == "torch"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "pip install triton" in caplog.text


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "installed", lambda: True)
    monkeypatch.setattr(gpu, "interpreted", lambda: False)
    with pytest.raises(OperatorError, match="got tensors on cpu; move them to a GPU"):
        bi_wkv(W, W, K, K, backend="triton")
    with pytest.raises(OperatorError, match='got tensors on meta; use backend="torch"'):
        bi_wkv(*(x.to("meta") for x in (W, W, K, K)), backend="triton")
    monkeypatch.setattr(gpu, "installed", lambda: False)
    assert not available_backends()["triton"]
    with pytest.raises(OperatorError, match="not installed; `pip install triton`"):
        bi_wkv(W, W, K, K, backend="triton")
