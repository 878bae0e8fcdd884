"""Tests of the C kernel only: threads, its other builds, second derivatives."""

from __future__ import annotations

import pytest
import torch

from restore_rwkv.ops import available_backends
from restore_rwkv.ops.cpu import binding as cpu
from restore_rwkv.ops.machine import built_kernels
from tests.helpers.bi_wkv_cases import NAMES, make_inputs, relative_rms, results, tolerance, truth

pytestmark = pytest.mark.skipif(not available_backends()["cpu"], reason="not built here")
RUNNABLE = cpu._WIDTHS.get(torch.backends.cpu.get_cpu_capability(), ("",))


@pytest.mark.usefixtures("restored_threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_number_of_threads_does_not_change_a_bit(dtype: torch.dtype) -> None:
    inputs = make_inputs(2, 1200, 17).to(dtype)
    assert inputs.k.numel() >= cpu._PARALLEL_FROM
    runs = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        runs.append(results(inputs, "cpu"))
    for name in NAMES:
        assert torch.equal(runs[0][name], runs[1][name])
        assert torch.equal(runs[0][name], runs[2][name])


@pytest.mark.parametrize("stem", RUNNABLE)
def test_every_build_for_this_processor_agrees(stem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    build = built_kernels(stem)
    if build is None:
        pytest.skip("not built here")
    monkeypatch.setattr(cpu, "library", lambda _: cpu._bound(build))
    shape = (2, 127, 17)
    for name, actual in results(make_inputs(*shape).to(torch.float32), "cpu").items():
        assert relative_rms(actual, truth(*shape)[name]) < tolerance(torch.float32, name), name


def test_second_derivatives_are_refused() -> None:
    leaves = [x.requires_grad_() for x in make_inputs(1, 5, 2)[:4]]
    y = cpu.bi_wkv(*leaves[:2], *(x.unsqueeze(1) for x in leaves[2:]))
    (gradient,) = torch.autograd.grad(y.sum(), leaves[3], create_graph=True)
    with pytest.raises(NotImplementedError, match="bi_wkv_backward"):
        gradient.sum().backward()
