"""torch.library.opcheck, torch.compile without graph breaks, and torch.export."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from restore_rwkv.ops import available_backends, bi_wkv
from restore_rwkv.ops.cpu import binding as cpu_backend
from tests.helpers.bi_wkv_cases import BACKENDS, NAMES, Inputs, make_inputs, results

needs_kernel = pytest.mark.skipif(not available_backends()["cpu"], reason="not built here")


@pytest.mark.slow
@needs_kernel
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_registered_operators_keep_their_promises(dtype: torch.dtype) -> None:
    inputs = make_inputs(2, 6, 3, 5).to(dtype)
    k = inputs.k.transpose(1, 2)
    v = torch.cat([inputs.v, inputs.v], -1)[..., 2:7].transpose(1, 2)
    gy = inputs.gy.transpose(1, 2)
    leaves = [x.clone().requires_grad_() for x in (inputs.w, inputs.u)]
    registered = torch.ops.restore_rwkv
    torch.library.opcheck(registered.bi_wkv.default, (*leaves, k, v.detach().requires_grad_()))
    state = cpu_backend.forward(inputs.w, inputs.u, k, v)[1]
    backward = registered.bi_wkv_backward.default
    torch.library.opcheck(backward, (gy, inputs.w, inputs.u, k, v, state))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["auto", "reference", *BACKENDS])
def test_compiles_into_one_graph(backend: str) -> None:
    torch._dynamo.reset()

    def run(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return bi_wkv(w, u, k, v, backend=backend)

    inputs = make_inputs(2, 70, 5).to(torch.float32)
    leaves = [x.requires_grad_() for x in inputs[:4]]
    y = torch.compile(run, fullgraph=True, backend="aot_eager")(*leaves)
    compiled = (y, *torch.autograd.grad(y, leaves, inputs.gy))
    eager = results(inputs, backend)
    for name, value in zip(NAMES, compiled, strict=True):
        torch.testing.assert_close(value, eager[name])


@needs_kernel
def test_one_compiled_graph_serves_every_length() -> None:
    torch._dynamo.reset()
    run = torch.compile(
        lambda w, u, k, v: bi_wkv(w, u, k, v, backend="cpu"),
        fullgraph=True,
        dynamic=True,
        backend="aot_eager",
    )
    for tokens, w in [(70, 3.0), (130, 3.0), (9, 5000.0)]:
        inputs = make_inputs(2, tokens, 5, w=w).to(torch.float32)
        leaves = [x.requires_grad_() for x in inputs[:4]]
        y = run(*leaves)
        gradients = torch.autograd.grad(y, leaves, inputs.gy)
        eager = results(inputs, "cpu")
        for name, value in zip(NAMES, (y, *gradients), strict=True):
            torch.testing.assert_close(value, eager[name])


class _Attention(torch.nn.Module):
    def forward(self, w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return bi_wkv(w, u, k, v)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(2, 3, 2, 5), (1, 1100, 3)])
def test_exported_programs_run_without_this_package(shape: tuple[int, ...]) -> None:
    """Backend "auto" must choose one that needs no custom operator."""
    inputs: Inputs = make_inputs(*shape).to(torch.float32)
    program = torch.export.export(_Attention().eval(), inputs[:4])
    calls = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert calls
    assert not any("restore_rwkv" in str(target) for target in calls)
    y = program.module()(*inputs[:4])
    torch.testing.assert_close(y, bi_wkv(*inputs[:4], backend="torch"))
