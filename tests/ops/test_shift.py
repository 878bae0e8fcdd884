"""LayerNorm and Omni-Shift in one kernel against PyTorch in float64: results and every gradient."""

from __future__ import annotations

import ctypes

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from restore_rwkv.ops import available_backends
from restore_rwkv.ops.cpu import binding as cpu
from restore_rwkv.ops.cpu import shift
from restore_rwkv.ops.machine import built_kernels
from tests.helpers.bi_wkv_cases import relative_rms

pytestmark = pytest.mark.skipif(not available_backends()["cpu"], reason="not built here")
RUNNABLE = cpu._WIDTHS.get(torch.backends.cpu.get_cpu_capability(), ("",))
# Images smaller than the kernel, of several bands of rows, and of no whole number of pixels in
# registers; channels of whole vectors or not.
SHAPES = [(1, 1, 3, 16), (2, 9, 13, 17), (1, 70, 5, 16), (2, 8, 8, 28), (1, 33, 41, 32)]
SHAPES += [(1, 4, 9, 112)]
TOLERANCE = 3e-6  # the worst was 1e-6


@pytest.fixture(params=RUNNABLE, autouse=True)
def _build(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run with each build for this processor whose kernels take 16 channels."""
    path = built_kernels(request.param)
    library = None if path is None else cpu._bound(path)
    if library is None or not library.pointwise_takes(ctypes.c_int64(16)):
        pytest.skip("not built here, or its vectors are too narrow")
    monkeypatch.setattr(cpu, "library", lambda _: library)


def make(shape: tuple[int, ...], sides: list[int]) -> tuple[torch.nn.LayerNorm, list[Tensor]]:
    """Return a norm, and x, alpha and the branches."""
    torch.manual_seed(0)
    channels = shape[-1]
    norm = torch.nn.LayerNorm(channels)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x, alpha = 3 * torch.randn(shape) + 1, torch.randn(1 + len(sides))
    branches = [torch.randn(channels, 1, side, side) / side for side in sides]
    return norm, [tensor.requires_grad_() for tensor in (x, alpha, *branches)]


def equation(
    x: Tensor, alpha: Tensor | None, *branches: Tensor, weight: Tensor, bias: Tensor
) -> Tensor:
    image = F.layer_norm(x, x.shape[-1:], weight, bias).permute(0, 3, 1, 2)
    y = [
        F.conv2d(image, branch, padding=branch.shape[-1] // 2, groups=x.shape[-1])
        for branch in branches
    ]
    if alpha is not None:
        y = [factor * part for factor, part in zip(alpha, [image, *y], strict=True)]
    return sum(y).permute(0, 2, 3, 1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sides", [[1], [1, 3], [1, 3, 5], [1, 3, 5, 7], [1, 3, 5, 7, 9], [5], [3]])
def test_result_and_gradients(shape: tuple[int, ...], sides: list[int]) -> None:
    norm, tensors = make(shape, sides)
    if len(sides) == 1:
        tensors = [tensors[0], *tensors[2:]]
    leaves = [norm.weight, norm.bias, *tensors]
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    if len(sides) == 1:
        y = shift.norm_and_shift(tensors[0], norm, tensors[1:])
        expected = equation(exact[2], None, *exact[3:], weight=exact[0], bias=exact[1])
    else:
        y = shift.norm_and_shift(tensors[0], norm, tensors[2:], tensors[1])
        expected = equation(*exact[2:], weight=exact[0], bias=exact[1])
    assert relative_rms(y.detach(), expected.detach()) < TOLERANCE
    gy = torch.randn(y.shape).transpose(1, 2).contiguous().transpose(1, 2)  # of another layout
    gradients = torch.autograd.grad(y, leaves, gy)
    truth = torch.autograd.grad(expected, exact, gy.double())
    for index, error in enumerate(map(relative_rms, gradients, truth)):
        assert error < TOLERANCE, index


def test_inference_is_the_same_as_training() -> None:
    norm, (x, alpha, *branches) = make((2, 40, 11, 28), [1, 3, 5])
    with torch.no_grad():
        inferred = shift.norm_and_shift(x, norm, branches, alpha)
    assert torch.equal(inferred, shift.norm_and_shift(x, norm, branches, alpha))


@pytest.mark.usefixtures("restored_threads")
def test_the_number_of_threads_does_not_change_a_bit() -> None:
    norm, (x, alpha, *branches) = make((2, 70, 31, 32), [1, 3, 5])
    assert x.numel() >= cpu._PARALLEL_FROM
    runs = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        y = shift.norm_and_shift(x, norm, branches, alpha)
        leaves = [x, norm.weight, norm.bias, alpha, *branches]
        runs.append([y, *torch.autograd.grad(y.square().sum(), leaves)])
    for run in runs[1:]:
        assert all(map(torch.equal, run, runs[0]))


def test_a_missing_value_reaches_its_neighbours_only() -> None:
    norm, (x, alpha, *branches) = make((1, 12, 12, 16), [1, 3, 5])
    with torch.no_grad():
        x[0, 6, 6, 3] = torch.nan
        missing = shift.norm_and_shift(x, norm, branches, alpha).isnan()
    assert missing[0, 4:9, 4:9].all()
    assert missing.sum() == 25 * 16


def test_constant_tokens_have_finite_gradients() -> None:
    norm, (x, alpha, *branches) = make((1, 4, 4, 16), [1, 3, 5])
    x = torch.ones_like(x).requires_grad_()
    shift.norm_and_shift(x, norm, branches, alpha).square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_other_norms_types_and_layouts_are_left_to_pytorch() -> None:
    x, norm = torch.randn(1, 3, 2, 16), torch.nn.LayerNorm(16)
    assert shift.takes(x, norm)
    assert not shift.takes(x, torch.nn.Identity())
    assert not shift.takes(x, torch.nn.LayerNorm(16, elementwise_affine=False))
    assert not shift.takes(x, torch.nn.LayerNorm((2, 16)))
    assert not shift.takes(x.double(), norm)
    assert not shift.takes(x, norm, norm.weight.double())
    assert not shift.takes(x[:0], norm)
    assert not shift.takes(x, torch.nn.LayerNorm(16, dtype=torch.float16))
    assert not shift.takes(x.transpose(1, 2), norm)
    norm.register_forward_hook(lambda *_: None)
    assert not shift.takes(x, norm)
