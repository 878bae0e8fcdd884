"""The network against the published code's values, sizes and names."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from restore_rwkv.errors import ConfigError, OperatorError
from restore_rwkv.model import PRESETS, RestoreRWKV, RestoreRWKVConfig
from restore_rwkv.model.blocks import OmniShift, pixel_shuffle, pixel_unshuffle
from tests.helpers import GOLDEN
from tests.helpers.golden_network import GoldenNetwork

SMALL = RestoreRWKVConfig(dim=8, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1)
# Largest deviation from the float64 values; measured 2e-15 and 1e-6.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
ABLATIONS: list[dict[str, Any]] = [
    {"attention": "uni-wkv", "scans": ("rows",)},
    {"attention": "uni-wkv"},
    {"shift": "quad"},
    {"shift": "uni"},
    {"scans": ("rows",)},
    {"scans": ("columns",)},
    {"scans": ("rows", "columns", "rows")},
    {"scans": ("rows", "columns", "rows", "columns")},
    {"scan_mixing": "alternating"},
    {"scan_mixing": "sum"},
    {"shift_kernel": 1},
    {"shift_kernel": 3},
    {"shift_kernel": 7},
    {"shift_kernel": 9},
    {"shift_branches": False},
    {"hidden_rate": 2},
    {"decay_range": (2.0, 64.0)},
    {"patch": 2},
    {"patch": 4},
]


def count_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def count_macs(network: RestoreRWKV, image: Tensor) -> int:
    """Multiply-accumulates of convolutions and linear layers, and 4 per LayerNorm value."""
    macs = []

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        places = output.numel() // output.shape[-1]
        if isinstance(module, nn.LayerNorm):
            macs.append(4 * output.numel())
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            macs.append(module.weight.numel() * places)
        elif isinstance(module, OmniShift):
            macs.append(module.kernel().numel() * places)

    handles = [module.register_forward_hook(count) for module in network.modules()]
    network(image)
    for handle in handles:
        handle.remove()
    return sum(macs)


def test_published_sizes() -> None:
    with torch.device("meta"):
        base, light = (RestoreRWKV(PRESETS[name], merged=True) for name in ("base", "light"))
        assert count_parameters(RestoreRWKV(PRESETS["base"])) == 27_996_737
    assert count_parameters(base) == 27_846_625
    assert count_parameters(light) == 1_156_961


def test_published_names_and_shapes() -> None:
    published = json.loads((GOLDEN / "state_dict_base.json").read_text())
    with torch.device("meta"):
        branches = RestoreRWKV(PRESETS["base"]).state_dict()
        merged = RestoreRWKV(PRESETS["base"], merged=True).state_dict()
    ours = {name: list(tensor.shape) for name, tensor in {**branches, **merged}.items()}
    assert ours == published
    assert set(branches) == {name for name in published if "reparam" not in name}


def test_published_multiply_accumulates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "restore_rwkv.model.blocks.bi_wkv", lambda w, u, k, v, out: v
    )  # not counted
    with torch.device("meta"):
        base = RestoreRWKV(PRESETS["base"], merged=True)
        assert count_macs(base, torch.zeros(1, 1, 128, 128)) == 37_458_542_592


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_golden_output_in_both_forms(golden: GoldenNetwork, dtype: torch.dtype) -> None:
    network, image = golden.network(dtype), golden.image.to(dtype)
    bound = TOLERANCE[dtype]
    with torch.no_grad():
        branches, merged = network(image).double(), network.merged()(image).double()
    assert (branches - golden.output_train_mode).abs().max() < bound
    assert (merged - golden.output).abs().max() < bound


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("merged", [False, True])
def test_golden_gradients(golden: GoldenNetwork, dtype: torch.dtype, merged: bool) -> None:
    network = golden.network(dtype)
    if merged:
        network = network.merged().requires_grad_(True)
    loss = (network(golden.image.to(dtype)) - golden.target.to(dtype)).abs().mean()
    assert loss.item() == pytest.approx(golden.loss, abs=TOLERANCE[dtype])
    loss.backward()
    compared = 0
    for name, parameter in network.named_parameters():
        if name in golden.gradients:
            assert parameter.grad is not None
            assert (parameter.grad - golden.gradients[name]).abs().max() < TOLERANCE[dtype], name
            compared += 1
    assert compared == len(golden.gradients) - (2 if merged else 0)  # alpha and conv3x3 are gone


def test_merging_leaves_the_network_alone(golden: GoldenNetwork) -> None:
    network = golden.network().train()
    merged = network.merged()
    with torch.no_grad():
        for parameter in merged.parameters():
            parameter.zero_()
    assert all(torch.equal(t, golden.weights[name]) for name, t in network.state_dict().items())
    assert network.training
    assert not network.is_merged
    assert merged.is_merged
    assert not merged.training
    assert not any(parameter.requires_grad for parameter in merged.parameters())


def test_checkpoints_of_activations_change_no_gradient(golden: GoldenNetwork) -> None:
    network = golden.network(torch.float32)
    gradients = []
    for network.checkpoint_activations in (False, True):
        network.zero_grad()
        network(golden.image.float()).square().sum().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        assert torch.equal(plain, checkpointed)


@pytest.mark.parametrize("changes", ABLATIONS, ids=str)
def test_every_ablation_trains_merges_and_differs(changes: dict[str, Any]) -> None:
    config = dataclasses.replace(SMALL, **changes)
    torch.manual_seed(0)
    network = RestoreRWKV(config)
    reference = RestoreRWKV(SMALL)
    shared = reference.state_dict()
    for name, tensor in network.state_dict().items():
        if name in shared and shared[name].shape == tensor.shape:
            tensor.copy_(shared[name])
    image = torch.rand(1, 1, 16 * config.patch, 24 * config.patch)
    output = network(image)
    output.square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
    with torch.no_grad():
        assert (output - reference(image)).abs().max() > 1e-3
        torch.testing.assert_close(network.merged()(image), output, rtol=1e-4, atol=1e-4)


def test_alternating_blocks_take_one_scan_each_in_turn() -> None:
    network = RestoreRWKV(dataclasses.replace(SMALL, scan_mixing="alternating"))
    scans = [module.scans for name, module in network.named_modules() if name.endswith(".att")]
    assert scans == [("rows",), ("columns",)] * 4


@pytest.mark.parametrize("patch", [1, 2, 4])
@pytest.mark.parametrize("size", [(8, 8), (9, 8), (15, 9), (16, 17), (181, 217)])
def test_any_size_comes_back_in_place(size: tuple[int, int], patch: int) -> None:
    network = RestoreRWKV(dataclasses.replace(SMALL, patch=patch))
    height, width = (patch * length for length in size)
    image = torch.rand(1, 1, height, width)
    stride = 8 * patch
    with torch.no_grad():
        output = network(image)
        padded = nn.functional.pad(image, (0, -width % stride, 0, -height % stride), mode="reflect")
        expected = network(padded)[:, :, :height, :width]
        nn.init.zeros_(network.output.weight)
        nn.init.zeros_(network.output.bias)
        identity = network(image)
    assert output.shape == image.shape
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-6)
    assert torch.equal(identity, image)


def test_ranges_are_in_pixels_at_every_level_and_size_of_image() -> None:
    network = RestoreRWKV(dataclasses.replace(SMALL, patch=2, decay_range=(2.0, 64.0)))
    for block, longest in (
        (network.encoder_level1[0], 32),
        (network.encoder_level3[0], 8),
        (network.latent[0], 4),
        (network.refinement[0], 32),
    ):
        for tokens in (64, 4096):
            w, u = block.att._decays(tokens)
            # The operator multiplies distances by w / T, so that T / w tokens make a factor of 1/e.
            ranges = (tokens / w).flatten().tolist()
            assert min(ranges) == pytest.approx(1)
            assert max(ranges) == pytest.approx(longest, rel=1e-5)
            torch.testing.assert_close(u / tokens, block.att.spatial_first)


@pytest.mark.parametrize("side", [2, 4])
def test_patches_are_those_of_pytorch(side: int) -> None:
    image = torch.rand(2, 8, 12, 3)
    channels_first = image.permute(0, 3, 1, 2)
    unshuffled = pixel_unshuffle(image, side)
    expected = nn.functional.pixel_unshuffle(channels_first, side).permute(0, 2, 3, 1)
    assert torch.equal(unshuffled, expected)
    assert torch.equal(pixel_shuffle(unshuffled, side), image)


def test_a_patch_makes_fewer_tokens_and_as_many_times_more_outer_channels() -> None:
    with torch.device("meta"):
        network = RestoreRWKV(PRESETS["patch2"])
    assert network.patch_embed.weight.shape == (28, 4, 3, 3)
    assert network.output.weight.shape == (4, 56, 3, 3)
    with pytest.raises(OperatorError, match="H and W at least 16"):
        network(torch.zeros(1, 1, 15, 32))


@pytest.mark.parametrize("patch", [1, 2])
def test_a_network_is_told_the_level_of_the_noise(patch: int) -> None:
    """The level is one more constant channel: one number for all images, or one for each."""
    torch.manual_seed(0)
    network = RestoreRWKV(dataclasses.replace(SMALL, noise_level=True, patch=patch)).merged()
    assert network.patch_embed.weight.shape[1] == 2 * patch**2
    images = torch.rand(2, 1, 16, 24)
    levels = torch.tensor([-1.0, 2.0])
    each = network(images, levels)
    for image, level, found in zip(images, levels, each, strict=True):
        torch.testing.assert_close(network(image[None], float(level))[0], found)
    assert (network(images, 2.0) - network(images, -1.0)).abs().max() > 1e-3
    torch.testing.assert_close(network(images), network(images, 0.0), rtol=0, atol=0)


def test_a_level_that_does_not_suit_the_network_is_refused() -> None:
    image = torch.zeros(2, 1, 16, 16)
    with pytest.raises(OperatorError, match="given to a network without an input for it"):
        RestoreRWKV(SMALL)(image, 0.0)
    network = RestoreRWKV(dataclasses.replace(SMALL, noise_level=True))
    with pytest.raises(OperatorError, match=r"noise_level is \(3,\); give one number, or one for"):
        network(image, torch.zeros(3))


@pytest.mark.parametrize("merged", [False, True])
def test_a_copy_can_be_trained_further(golden: GoldenNetwork, merged: bool) -> None:
    network = golden.network(torch.float32)
    before = network.merged() if merged else network
    copy = RestoreRWKV(network.config)
    copy.copy_from(before)
    image = golden.image.float()
    torch.testing.assert_close(copy(image), network(image), rtol=0, atol=1e-5)
    copy(image).sum().backward()
    assert all(parameter.grad is not None for parameter in copy.parameters())
    with pytest.raises(OperatorError, match="has another configuration"):
        RestoreRWKV(dataclasses.replace(SMALL, dim=12)).copy_from(before)
    with pytest.raises(OperatorError, match="or its merged"):
        network.merged().copy_from(network)


@pytest.mark.parametrize("patch", [1, 2])
def test_a_network_that_is_told_the_level_starts_from_one_that_is_not(patch: int) -> None:
    torch.manual_seed(0)
    before = RestoreRWKV(dataclasses.replace(SMALL, patch=patch))
    told = RestoreRWKV(dataclasses.replace(SMALL, patch=patch, noise_level=True))
    told.copy_from(before)
    image = torch.rand(1, 1, 16, 32)
    torch.testing.assert_close(told(image, 1.5), before(image), rtol=0, atol=1e-6)
    with pytest.raises(OperatorError, match="has another configuration"):
        before.copy_from(told)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_defaults_of_pytorch_change_nothing(golden: GoldenNetwork, dtype: torch.dtype) -> None:
    network, image = golden.network(torch.float32), golden.image.float()
    parameters = list(network.parameters())
    expected = torch.autograd.grad(network(image).square().sum(), parameters)
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            found = torch.autograd.grad(network(image).square().sum(), parameters)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(map(torch.equal, found, expected))


def test_an_empty_batch_is_refused_like_anywhere_else() -> None:
    with pytest.raises(OperatorError, match="empty"):
        RestoreRWKV(SMALL)(torch.zeros(0, 1, 16, 16))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_a_network_compiles_into_one_graph() -> None:
    torch._dynamo.reset()
    network = RestoreRWKV(SMALL)
    image = torch.rand(1, 1, 16, 16)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(image), network(image), rtol=0, atol=1e-5)


def test_images_of_a_batch_and_their_layout_do_not_matter() -> None:
    network = RestoreRWKV(dataclasses.replace(SMALL, in_channels=3, out_channels=3)).merged()
    images = torch.rand(2, 3, 16, 24)
    expected = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(network(images), expected, rtol=0, atol=1e-5)
    strided = images.to(memory_format=torch.channels_last)
    torch.testing.assert_close(network(strided), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "image",
    [
        torch.zeros(1, 1, 7, 16),
        torch.zeros(1, 1, 16, 7),
        torch.zeros(1, 2, 16, 16),
        torch.zeros(1, 16, 16),
        torch.zeros(1, 1, 16, 16, dtype=torch.int16),
    ],
    ids=lambda image: f"{tuple(image.shape)} {image.dtype}",
)
def test_unsuitable_images_are_refused(image: Tensor) -> None:
    with pytest.raises(OperatorError, match=r"RestoreRWKV: image is .*; (give|convert)"):
        RestoreRWKV(SMALL)(image)


def test_config_survives_json() -> None:
    for config in (*PRESETS.values(), *(dataclasses.replace(SMALL, **c) for c in ABLATIONS)):
        assert RestoreRWKVConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_unknown_key_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown key 'num_block'; did you mean 'num_blocks'"):
        RestoreRWKVConfig.from_dict({"num_block": [1, 1, 1, 1]})


@pytest.mark.parametrize(
    "values",
    [
        {"patch": 3},
        {"decay_range": (0.5, 4.0)},
        {"decay_range": (4.0, 2.0)},
        {"decay_range": (4.0,)},
        {"dim": 7},
        {"dim": 0},
        {"dim": 8.0},
        {"dim": "8"},
        {"hidden_rate": True},
        {"in_channels": 2},
        {"noise_level": 1},
        {"num_blocks": (1, 1, 1)},
        {"num_blocks": (1, 1, 1, 0)},
        {"num_blocks": 4},
        {"scans": ()},
        {"scans": ("diagonal",)},
        {"scans": "rows"},
        {"scans": ([],)},
        {"scan_mixing": "mean"},
        {"attention": "softmax"},
        {"shift": None},
        {"shift_kernel": 4},
        {"shift_branches": 1},
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"config: .*{next(iter(values))}"):
        RestoreRWKVConfig.from_dict(values)
