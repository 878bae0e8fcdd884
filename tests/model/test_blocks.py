"""The parts of a block against their equations, written out plainly."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from restore_rwkv.model.blocks import (
    Block,
    ChannelMix,
    NeighbourShift,
    OmniShift,
    Resample,
    SpatialMix,
    TokenConv,
    TokenMix,
)
from restore_rwkv.ops.cpu import binding as cpu
from restore_rwkv.ops.eager import is_eager


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7, 9])
def test_omni_shift_is_the_weighted_sum_of_its_branches(kernel_size: int) -> None:
    shift = OmniShift(6, kernel_size).double()
    x = torch.randn(2, 11, 10, 6, dtype=torch.float64)
    image = x.permute(0, 3, 1, 2)
    expected = shift.alpha[0] * image
    for index, side in enumerate(range(1, kernel_size + 1, 2), start=1):
        weight = shift.get_parameter(f"conv{side}x{side}.weight")
        expected = expected + shift.alpha[index] * F.conv2d(
            image, weight, padding=side // 2, groups=6
        )
    torch.testing.assert_close(shift(x), expected.permute(0, 2, 3, 1), rtol=1e-12, atol=1e-12)


def test_omni_shift_without_branches_is_one_convolution() -> None:
    shift = OmniShift(6, 5, branches=False)
    assert list(shift.state_dict()) == ["conv5x5.weight"]
    x = torch.randn(1, 9, 8, 6)
    expected = F.conv2d(x.permute(0, 3, 1, 2), shift.kernel(), padding=2, groups=6)
    torch.testing.assert_close(shift(x), expected.permute(0, 2, 3, 1))


def test_uni_shift_reads_the_previous_token() -> None:
    shift = NeighbourShift(4, "uni")
    torch.nn.init.zeros_(shift.mix)
    x = torch.randn(2, 3, 5, 4)
    tokens, shifted = x.flatten(1, 2), shift(x).flatten(1, 2)
    assert torch.equal(shifted[:, 1:], tokens[:, :-1])
    assert not shifted[:, 0].any()


def test_quad_shift_reads_one_neighbour_for_each_quarter_of_the_channels() -> None:
    shift = NeighbourShift(4, "quad")
    torch.nn.init.zeros_(shift.mix)
    x = torch.zeros(1, 5, 5, 4)
    x[0, 2, 2] = 1
    places = [tuple(shift(x)[0, ..., channel].nonzero()[0].tolist()) for channel in range(4)]
    assert places == [(2, 3), (2, 1), (3, 2), (1, 2)]  # right, left, below, above of the source


def test_neighbour_shift_interpolates() -> None:
    shift = NeighbourShift(4, "quad")
    x = torch.ones(1, 3, 3, 4)
    assert torch.equal(shift(x)[0, 1, 1], torch.ones(4))
    assert torch.equal(shift(x)[0, 1, 0], torch.tensor([0.5, 1, 1, 1]))


@pytest.mark.parametrize("up", [True, False])
def test_resample_is_a_convolution_then_torchs_pixel_shuffle(up: bool) -> None:
    resample = Resample(8, up)
    x = torch.randn(2, 6, 4, 8)
    convolved = resample.body(x).permute(0, 3, 1, 2)
    expected = F.pixel_shuffle(convolved, 2) if up else F.pixel_unshuffle(convolved, 2)
    assert torch.equal(resample(x), expected.permute(0, 2, 3, 1))
    assert resample(x).is_contiguous()


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("channels", [1, 4])
def test_token_convolution_keeps_the_layout(channels: int, kernel: int) -> None:
    convolution = TokenConv(channels, 6, kernel, bias=True)
    x = torch.randn(2, 7, 5, channels)
    expected = F.conv2d(
        x.permute(0, 3, 1, 2), convolution.weight, convolution.bias, padding=kernel // 2
    )
    y = convolution(x)
    torch.testing.assert_close(y, expected.permute(0, 2, 3, 1))
    assert y.is_contiguous()


def half(mix: TokenMix, x: Tensor) -> Tensor:
    """The half of a block that a mix makes, without a norm."""
    return mix(x, torch.nn.Identity(), torch.linspace(0.5, 2, x.shape[-1], dtype=x.dtype))


def test_the_second_scan_runs_along_columns() -> None:
    rows = SpatialMix(4, torch.nn.Identity(), ("rows",))
    columns = SpatialMix(4, torch.nn.Identity(), ("columns",))
    columns.load_state_dict(rows.state_dict())
    x = torch.randn(1, 5, 7, 4)
    transposed = half(rows, x.transpose(1, 2).contiguous()).transpose(1, 2)
    torch.testing.assert_close(half(columns, x), transposed)
    assert not torch.allclose(half(columns, x), half(rows, x), atol=1e-3)


def test_channel_mix_is_the_equation() -> None:
    mix = ChannelMix(3, torch.nn.Identity(), hidden_rate=2)
    x, gamma = torch.randn(1, 2, 3, 3), torch.tensor([0.5, 1.0, 2.0])
    gate = torch.sigmoid(x @ mix.receptance.weight.T)
    expected = x + gamma * gate * (torch.relu(x @ mix.key.weight.T) ** 2 @ mix.value.weight.T)
    torch.testing.assert_close(mix(x, torch.nn.Identity(), gamma), expected)


@pytest.mark.parametrize("kind", [SpatialMix, ChannelMix])
def test_gradients_are_those_of_the_equation(kind: type[TokenMix]) -> None:
    mix = kind(3, torch.nn.Identity()).double()
    x = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: half(mix, x), x)


# Channels that the kernels for few channels take, with AVX-512 or less, or do not take; tokens of
# several bands, that fill no whole tile, and fewer than one.
@pytest.mark.parametrize("shape", [(2, 9, 13), (1, 150, 130), (1, 1, 3)])
@pytest.mark.parametrize("channels", [3, 16, 32, 48, 96, 100])
@pytest.mark.parametrize("kind", [SpatialMix, ChannelMix])
def test_a_mix_gives_the_same_with_and_without_gradients(
    kind: type[TokenMix], channels: int, shape: tuple[int, int, int]
) -> None:
    mix = kind(channels, OmniShift(channels))
    x = torch.randn(*shape, channels)
    before = x.clone()
    with torch.no_grad():
        inferred = half(mix, x)
    assert torch.equal(x, before)
    torch.testing.assert_close(inferred, half(mix, x), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", [SpatialMix, ChannelMix])
def test_other_precisions_go_the_same_way(kind: type[TokenMix], dtype: torch.dtype) -> None:
    mix = kind(16, OmniShift(16)).to(dtype)
    x = torch.randn(1, 9, 8, 16, dtype=dtype)
    with torch.no_grad():
        inferred = half(mix, x)
    assert inferred.dtype == dtype
    torch.testing.assert_close(inferred, half(mix, x))


def test_without_kernels_the_mixes_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    mix = SpatialMix(16, torch.nn.Identity())
    x = torch.randn(1, 9, 8, 16)
    with torch.no_grad():
        fused = half(mix, x)
        monkeypatch.setattr(cpu, "_BUILDS", {torch.float32: None, torch.float64: None})
        torch.testing.assert_close(half(mix, x), fused)


@pytest.mark.parametrize("kind", [SpatialMix, ChannelMix])
@pytest.mark.parametrize("channels", [16, 100])
def test_tokens_of_any_layout(kind: type[TokenMix], channels: int) -> None:
    mix = kind(channels, torch.nn.Identity())
    x = torch.randn(2, 9, 8, channels).transpose(1, 2)
    with torch.no_grad():
        torch.testing.assert_close(half(mix, x), half(mix, x.contiguous()))


def test_each_parameter_has_its_gradient_when_it_alone_is_trained() -> None:
    block = Block(16, SpatialMix(16, OmniShift(16)), ChannelMix(16, OmniShift(16)))
    x = torch.randn(1, 9, 8, 16)
    block(x).square().sum().backward()
    expected = {name: parameter.grad for name, parameter in block.named_parameters()}
    for name, parameter in block.named_parameters():
        block.requires_grad_(False)
        block.zero_grad()
        parameter.requires_grad_(True)
        block(x).square().sum().backward()
        assert parameter.grad is not None, name
        torch.testing.assert_close(parameter.grad, expected[name], msg=name)


class _Doubled(torch.nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def test_layers_that_do_more_than_a_product_are_called() -> None:
    mix = ChannelMix(16, torch.nn.Identity())
    doubled = _Doubled(16, 64, bias=False)
    doubled.load_state_dict(mix.key.state_dict())
    mix.key = doubled
    x = torch.randn(1, 9, 8, 16)
    calls: list[int] = []
    mix.value.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        torch.testing.assert_close(half(mix, x), half(mix, x.clone().requires_grad_()))
    assert calls


@pytest.mark.parametrize("kind", [SpatialMix, ChannelMix])
def test_a_weight_that_is_not_a_number_shows(kind: type[TokenMix]) -> None:
    for name in ("key", "receptance", "value"):
        mix = kind(16, torch.nn.Identity())
        torch.nn.init.constant_(mix.get_submodule(name).weight, torch.nan)
        with torch.no_grad():
            result = half(mix, torch.randn(1, 9, 8, 16))
        # The attention gives a token whose keys are all missing no weight at all.
        assert result.isnan().all() or (kind is SpatialMix and name == "key")


def test_autocast_reaches_every_product() -> None:
    block = Block(16, SpatialMix(16, OmniShift(16)), ChannelMix(16, OmniShift(16)))
    x = torch.randn(1, 9, 8, 16)
    with torch.autocast("cpu", torch.bfloat16):
        trained = block(x)
        with torch.no_grad():
            torch.testing.assert_close(block(x), trained)


def test_traced_and_fake_tensors_meet_no_kernel() -> None:
    block = Block(16, SpatialMix(16, OmniShift(16)), ChannelMix(16, OmniShift(16)))
    block.requires_grad_(False)
    x = torch.randn(1, 9, 8, 16)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
        assert block(mode.from_tensor(x)).shape == x.shape
    assert not is_eager(x.to("meta"))
    eager: list[bool] = []
    torch.func.vmap(lambda x: (eager.append(is_eager(x)), x)[1])(x)
    assert eager == [False]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is on its way out
        traced = torch.jit.trace(block, x, check_trace=False)
    other = torch.randn(1, 9, 8, 16)
    torch.testing.assert_close(traced(other), block(other), rtol=1e-4, atol=1e-4)
