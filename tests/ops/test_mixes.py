"""The fused mixes of a block against their equations in float64: results and every gradient."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from restore_rwkv.ops import available_backends, bi_wkv
from restore_rwkv.ops.cpu import binding as cpu
from restore_rwkv.ops.cpu import mixes, pointwise
from restore_rwkv.ops.machine import built_kernels
from tests.helpers.bi_wkv_cases import relative_rms

pytestmark = pytest.mark.skipif(not available_backends()["cpu"], reason="not built here")
RUNNABLE = cpu._WIDTHS.get(torch.backends.cpu.get_cpu_capability(), ("",))
# Tokens that fill no block, less than a tile, or several blocks; widths of whole vectors or not.
SHAPES = [
    (1, 1, 3, 16),
    (2, 9, 13, 16),
    (1, 5, 5, 28),
    (1, 70, 33, 17),
    (2, 8, 8, 56),
    (1, 9, 4, 224),
]
TOLERANCE = 3e-6  # the worst was 7e-7 ...
DECAY_TOLERANCE = 4e-5  # ... but 1.4e-5 for the decay, from the operator (docs/operator.md)


@pytest.fixture(params=RUNNABLE, autouse=True)
def _build(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run with each build for this processor whose kernels take 16 channels."""
    path = built_kernels(request.param)
    library = None if path is None else cpu._bound(path)
    if library is None or not library.pointwise_takes(ctypes.c_int64(16)):
        pytest.skip("not built here, or its vectors are too narrow")
    lanes = int(library.bi_wkv_lanes())
    monkeypatch.setattr(cpu, "library", lambda _: library)
    monkeypatch.setattr(cpu, "_lanes", lambda _: lanes)


def channel_mix(
    x: Tensor, residual: Tensor, gamma: Tensor, key: Tensor, receptance: Tensor, value: Tensor
) -> Tensor:
    mixed = (x @ receptance.T).sigmoid() * ((x @ key.T).relu().square() @ value.T)
    return residual + gamma * mixed


def spatial_mix(
    x: Tensor, residual: Tensor, gamma: Tensor, decay: Tensor, first: Tensor, *weights: Tensor
) -> Tensor:
    key, value, receptance, output = weights
    k, v = x @ key.T, x @ value.T
    v = bi_wkv(decay[0], first[0], k, v, backend="torch")
    k, v = k.transpose(1, 2), v.transpose(1, 2)
    v = bi_wkv(decay[1], first[1], k, v, backend="torch").transpose(1, 2)
    return residual + gamma * (((x @ receptance.T).sigmoid() * v) @ output.T)


def inputs(shape: tuple[int, ...], *weights: tuple[int, ...]) -> list[Tensor]:
    torch.manual_seed(0)
    tensors = [torch.randn(shape), torch.randn(shape), torch.randn(shape[-1])]
    tensors += [torch.randn(size) / size[-1] ** 0.5 for size in weights]
    return [x.requires_grad_() for x in tensors]


def compare(
    fused: Callable[..., Tensor], equation: Callable[..., Tensor], tensors: list[Tensor]
) -> None:
    exact = [x.detach().double().requires_grad_() for x in tensors]
    y, expected = fused(*tensors), equation(*exact)
    assert relative_rms(y.detach(), expected.detach()) < TOLERANCE
    gy = torch.randn(y.shape).transpose(1, 2).contiguous().transpose(1, 2)  # of another layout
    gradients = torch.autograd.grad(y, tensors, gy)
    truth = torch.autograd.grad(expected, exact, gy.double())
    for index, error in enumerate(map(relative_rms, gradients, truth)):
        assert error < (DECAY_TOLERANCE if len(tensors) == 9 and index == 3 else TOLERANCE), index


@pytest.mark.usefixtures("restored_threads")
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rate", [1, 2.5, 4])
def test_channel_mix_and_its_gradients(
    shape: tuple[int, ...], rate: float, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several threads sum gradients in groups; small images are given to one thread otherwise."""
    monkeypatch.setattr(cpu, "_PARALLEL_FROM", 0)
    torch.set_num_threads(threads)
    c, hidden = shape[-1], int(rate * shape[-1])
    compare(mixes.mix_channels, channel_mix, inputs(shape, (hidden, c), (c, c), (c, hidden)))


@pytest.mark.usefixtures("restored_threads")
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_spatial_mix_and_its_gradients(
    shape: tuple[int, ...], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "_PARALLEL_FROM", 0)
    torch.set_num_threads(threads)
    c = shape[-1]

    def fused(*tensors: Tensor) -> Tensor:
        return mixes.mix_tokens(*tensors[:5], tensors[5:], ("rows", "columns"))

    compare(fused, spatial_mix, inputs(shape, (2, c), (2, c), *[(c, c)] * 4))


def test_the_same_call_gives_the_same_bits() -> None:
    tensors = inputs((2, 40, 41, 32), (128, 32), (32, 32), (32, 128))
    runs = []
    for _ in range(3):
        y = mixes.mix_channels(*tensors)
        runs.append([y, *torch.autograd.grad(y.square().sum(), tensors)])
    for run in runs[1:]:
        assert all(map(torch.equal, run, runs[0]))


def test_weights_of_another_layout_have_the_same_gradients() -> None:
    tensors = inputs((2, 9, 13, 16), (64, 16), (16, 16), (16, 64))
    other = [x.detach().mT.contiguous().mT.requires_grad_() if x.dim() == 2 else x for x in tensors]
    assert not other[3].is_contiguous()
    for a, b in zip(
        torch.autograd.grad(mixes.mix_channels(*other).square().sum(), other),
        torch.autograd.grad(mixes.mix_channels(*tensors).square().sum(), tensors),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_inference_is_the_same_as_training() -> None:
    tensors = inputs((2, 9, 13, 28), (112, 28), (28, 28), (28, 112))
    with torch.no_grad():
        inferred = mixes.mix_channels(*tensors)
    assert torch.equal(inferred, mixes.mix_channels(*tensors))


def test_missing_values_show_in_results_and_gradients() -> None:
    tensors = inputs((1, 4, 4, 16), (64, 16), (16, 16), (16, 64))
    with torch.no_grad():
        tensors[0][0, 2, 1, 3] = torch.nan
    y = mixes.mix_channels(*tensors)
    assert y[0, 2, 1].isnan().all()
    assert y.isnan().sum() == 16
    gradients = torch.autograd.grad(y.sum(), tensors)
    assert gradients[0][0, 2, 1].isnan().all()
    assert gradients[3].isnan().any()


def test_narrow_tokens_other_types_and_watched_layers_are_left_to_pytorch() -> None:
    layer = torch.nn.Linear(16, 16, bias=False)
    x, gamma = torch.randn(1, 2, 2, 16), torch.ones(16)
    assert not pointwise.takes(x, gamma.double(), layer)
    assert not pointwise.takes(x[:0], gamma, layer)
    assert pointwise.takes(x, gamma, layer)
    assert not pointwise.takes(x[..., :4].contiguous(), gamma[:4], layer)
    assert not pointwise.takes(x.double(), gamma, layer)
    assert not pointwise.takes(x.transpose(1, 2), gamma, layer)
    assert not pointwise.takes(x, gamma, torch.nn.Linear(16, 16))
    layer.register_full_backward_hook(lambda *_: None)
    assert not pointwise.takes(x, gamma, layer)
