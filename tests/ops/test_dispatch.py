"""Argument errors before anything runs, and the choice of a backend."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from restore_rwkv.errors import OperatorError
from restore_rwkv.ops import available_backends, bi_wkv, dispatch, uni_wkv
from restore_rwkv.ops.cpu import binding as cpu

W, K = torch.zeros(4), torch.zeros(2, 6, 4)


@pytest.fixture
def _no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "SWITCHED_OFF", False)
    monkeypatch.setattr(cpu, "_BUILDS", {torch.float32: None, torch.float64: None})
    dispatch._log_choice.cache_clear()


@pytest.mark.parametrize("operator", [bi_wkv, uni_wkv])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((W, W, K, K[:, :5]), r"k is \(2, 6, 4\) and v \(2, 5, 4\); both must be the same"),
        ((W, W, K[0], K[0]), r"k is \(6, 4\)"),
        ((W, W, K[None, None], K[None, None]), r"k is \(1, 1, 2, 6, 4\)"),
        ((W, W, K[:, :0], K[:, :0]), "without an empty axis"),
        ((W[:3], W, K, K), r"w is \(3,\) and u \(4,\); k has 4 channels"),
        ((W, W[None], K, K), r"u \(1, 4\)"),
        ((W, W, K.int(), K.int()), "k is torch.int32"),
        ((W, W, K, K.double()), "k is torch.float32 and v torch.float64"),
        ((W, W.long(), K, K), "u torch.int64; both must be floating point"),
        ((W, W.to("meta"), K, K), r"several devices \(cpu, meta\); move them to one"),
    ],
)
def test_wrong_arguments_are_named(
    operator: Callable[..., Tensor], arguments: tuple[Tensor, ...], message: str
) -> None:
    with pytest.raises(OperatorError, match=message):
        operator(*arguments)


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(OperatorError, match='"cuda" is unknown; use auto, reference, torch, cpu'):
        bi_wkv(W, W, K, K, backend="cuda")


def test_the_kernel_refuses_other_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "available", lambda: True)
    w, k = W.to("meta"), K.to("meta")
    with pytest.raises(OperatorError, match='got tensors on meta; use backend="torch"'):
        bi_wkv(w, w, k, k, backend="cpu")
    assert bi_wkv(w, w, k, k).device.type == "meta"


@pytest.mark.parametrize("backend", ["cpu", "triton"])
def test_uni_wkv_has_no_kernel(backend: str) -> None:
    with pytest.raises(OperatorError, match=f'"{backend}" has no uni_wkv; use backend="torch"'):
        uni_wkv(W, W, K, K, backend=backend)


@pytest.mark.usefixtures("_no_kernel")
def test_a_missing_kernel_asked_for_by_name_is_an_error() -> None:
    assert not available_backends()["cpu"]
    with pytest.raises(OperatorError, match="not built here; install a C compiler and reinstall"):
        bi_wkv(W, W, K, K, backend="cpu")


def test_kernels_that_are_switched_off_are_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cpu, "SWITCHED_OFF", True)
    dispatch._log_choice.cache_clear()
    assert not available_backends()["cpu"]
    bi_wkv(W, W, K, K)
    assert "RESTORE_RWKV_KERNELS=0: bi_wkv runs in plain PyTorch" in caplog.text
    with pytest.raises(
        OperatorError, match="RESTORE_RWKV_KERNELS=0 switches its kernel off; unset"
    ):
        bi_wkv(W, W, K, K, backend="cpu")


@pytest.mark.parametrize(("value", "off"), [("0", True), ("1", False)])
def test_the_switch_is_read_from_the_environment(value: str, off: bool) -> None:
    code = (
        "from restore_rwkv.ops.cpu import binding; from restore_rwkv.ops import available_backends;"
        f"assert binding.SWITCHED_OFF is {off};"
        f"assert {not off} or not available_backends()['cpu']"
    )
    environment = {**os.environ, "RESTORE_RWKV_KERNELS": value}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


@pytest.mark.usefixtures("_no_kernel")
def test_a_missing_kernel_falls_to_torch_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            bi_wkv(W, W, K, K)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "plain PyTorch" in caplog.text


@pytest.mark.parametrize("backend", ["auto", "reference", "torch", "cpu"])
def test_the_output_lies_like_the_input(backend: str) -> None:
    if backend == "cpu" and not cpu.available():
        pytest.skip("not built here")
    y = bi_wkv(W, W, K, K + 1, backend=backend)
    assert (y.shape, y.dtype, y.device) == (K.shape, K.dtype, K.device)
    torch.testing.assert_close(y, K + 1)
