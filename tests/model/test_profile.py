"""Parameters and multiply-accumulates of networks, and the time and memory of a call."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore_rwkv.errors import ConfigError, OperatorError
from restore_rwkv.model import (
    PRESETS,
    Macs,
    RestoreRWKV,
    RestoreRWKVConfig,
    count_levels,
    profile_network,
)
from restore_rwkv.model.macs import COUNTED
from restore_rwkv.model.measuring import peak_bytes
from tests.conftest import TINY


class Hand(nn.Module):
    """A network whose work can be counted by hand; one layer lies outside its modules."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.down = nn.Conv2d(4, 6, 2, stride=2)
        self.norm = nn.GroupNorm(2, 6)
        self.mix = nn.Linear(6, 5)
        self.up = nn.ConvTranspose2d(5, 1, 2, stride=2)
        self.gain = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.down(self.first(x)))
        tokens = y.flatten(2).transpose(1, 2)  # (1, 48, 6)
        attended = F.softmax(tokens @ tokens.transpose(1, 2), -1) @ tokens
        y = self.mix(attended).transpose(1, 2).unflatten(2, y.shape[2:])
        out: Tensor = self.up(y)
        return out


def test_work_counted_by_hand_is_counted() -> None:
    levels = {level.name: level for level in count_levels(Hand(), (16, 12))}
    assert {name: level.macs.total for name, level in levels.items()} == {
        "first": 16 * 12 * 4 * 9,
        "down": 8 * 6 * 6 * 4 * 4,
        "norm": 4 * 8 * 6 * 6,
        "mix": 48 * 6 * 5,
        "up": 8 * 6 * 5 * 4,
        "outside these": 2 * 48 * 48 * 6,
    }
    assert levels["first"].macs == Macs(convolutions=6912)
    assert levels["norm"].macs == Macs(norms=1152)
    assert levels["mix"].macs == Macs(products=1440)
    assert levels["outside these"].macs == Macs(products=27648)
    assert {name: level.parameters for name, level in levels.items()} == {
        "first": 40,
        "down": 102,
        "norm": 12,
        "mix": 35,
        "up": 21,
        "outside these": 3,
    }


def test_attention_as_torch_has_it_is_counted_as_its_two_products() -> None:
    class Attention(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            q = x.flatten(2)[:, :, :, None]  # (B, 1, T, 1)
            return F.scaled_dot_product_attention(q, q, q).reshape(x.shape)

    (level,) = count_levels(Attention(), (8, 8))
    assert level.macs == Macs(products=2 * 64 * 64)


@pytest.mark.parametrize(
    ("attention", "scans", "each"),
    [("bi-wkv", ("rows", "columns"), 12), ("bi-wkv", ("rows",), 6), ("uni-wkv", ("rows",), 4)],
)
def test_attention_is_counted_by_token_channel_and_scan(
    attention: str, scans: tuple[str, ...], each: int
) -> None:
    network = RestoreRWKV(
        RestoreRWKVConfig.from_dict(
            {**TINY.to_dict(), "attention": attention, "scans": list(scans)}
        )
    )
    levels = {level.name: level.macs.attention for level in count_levels(network, (16, 24))}
    assert levels["encoder 1"] == each * 16 * 24 * 4
    assert levels["latent"] == each * 2 * 3 * 32
    assert levels["refinement"] == each * 16 * 24 * 8
    assert levels["patch embed"] == levels["output"] == 0


def test_base_has_the_parameters_and_the_work_of_the_paper() -> None:
    with torch.device("meta"):
        network, merged = RestoreRWKV(PRESETS["base"]), RestoreRWKV(PRESETS["base"], merged=True)
    levels = count_levels(merged, (128, 128))
    parameters = sum(level.parameters for level in levels)
    assert parameters == 27_846_625
    assert sum(level.parameters for level in count_levels(network, (8, 8))) == 27_996_737
    # The published 27.9140 M hold a 3 x 3 depth-wise layer per block that is never used.
    unused = 9 * sum(block.ln1.normalized_shape[0] for block in blocks(merged))
    assert parameters + unused == 27_914_017
    assert sum(level.macs.as_paper for level in levels) == 37_458_542_592  # 37.4585 G
    assert sum(level.macs.attention for level in levels) == 283_115_520


def blocks(network: RestoreRWKV) -> list[nn.Module]:
    return [module for module in network.modules() if type(module).__name__ == "Block"]


@pytest.mark.parametrize("patch", [1, 2])
def test_levels_add_up_to_the_whole(patch: int) -> None:
    torch.manual_seed(0)
    network = RestoreRWKV(RestoreRWKVConfig.from_dict({**TINY.to_dict(), "patch": patch}))
    found = profile_network(network, 32, repeats=2)
    assert found.parameters == sum(level.parameters for level in found.levels)
    for kind in COUNTED:
        assert getattr(found.macs, kind) == sum(getattr(x.macs, kind) for x in found.levels) > 0
    assert found.parameters == sum(x.numel() for x in network.merged().parameters())
    assert found.training_parameters == sum(x.numel() for x in network.parameters())
    assert len(found.seconds) == 2
    assert found.to_dict()["macs"]["total"] == found.macs.total


@pytest.mark.slow
def test_weights_in_the_inference_form_have_the_same_profile(tiny_network: RestoreRWKV) -> None:
    network = RestoreRWKV(TINY)
    trained, merged = (profile_network(x, 16, repeats=1) for x in (network, tiny_network))
    assert merged.training_parameters == trained.training_parameters
    assert merged.levels == trained.levels


def test_a_profile_leaves_the_network_as_it_was() -> None:
    network = Hand().train()
    profile_network(network, 16, repeats=1)
    assert network.training
    assert all(weight.requires_grad for weight in network.parameters())
    assert not network.first._forward_pre_hooks


def test_a_long_list_of_layers_is_one_level() -> None:
    layers = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1) for _ in range(20)))
    assert [x.name for x in count_levels(nn.Sequential(layers), (8, 8))] == ["0"]
    few = nn.Sequential(nn.Sequential(*layers[:3]))
    assert [x.name for x in count_levels(few, (8, 8))] == ["0", "1", "2"]


def test_what_cannot_be_measured_is_refused_in_one_line(tiny_network: RestoreRWKV) -> None:
    with pytest.raises(ConfigError, match=r"^size is 0; give a whole number from 1$"):
        profile_network(tiny_network, 0)
    with pytest.raises(ConfigError, match=r"^repeats is 0"):
        profile_network(tiny_network, 16, repeats=0)
    with pytest.raises(OperatorError, match="at least 8"):
        profile_network(tiny_network, 7)
    with pytest.raises(OperatorError, match=r"^Sequential: cannot be counted .* another size$"):
        profile_network(nn.Sequential(nn.Conv2d(3, 3, 1)), 16)


@pytest.mark.skipif(sys.platform != "linux", reason="a mark that can be set back")
def test_the_peak_holds_what_the_call_took_and_freed_again() -> None:
    held = torch.ones(4 << 20)
    assert peak_bytes(lambda: torch.ones(16 << 20)) == pytest.approx(64 << 20, rel=0.05)
    assert held.sum() == 4 << 20
