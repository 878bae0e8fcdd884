from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from restore_rwkv.errors import ConfigError
from restore_rwkv.model import PRESETS, RestoreRWKV
from restore_rwkv.restoration import tiles as inference
from restore_rwkv.restoration.tiles import Plan, _fade, _spans


def test_batches_give_what_single_slices_give(tiny_network: RestoreRWKV) -> None:
    slices = torch.rand(5, 1, 24, 19)
    batched = inference.run(tiny_network, slices, Plan(2, (24, 19)))
    single = torch.cat([tiny_network(image[None]) for image in slices])
    torch.testing.assert_close(batched, single, rtol=0, atol=1e-5)


def test_a_plan_fills_the_memory_with_whole_slices(tiny_network: RestoreRWKV) -> None:
    one = inference.plan(tiny_network, (64, 64), 64 * 64 * inference.bytes_per_pixel(tiny_network))
    assert one == Plan(1, (64, 64))
    assert inference.plan(
        tiny_network, (64, 64), 7 * 64 * 64 * inference.bytes_per_pixel(tiny_network)
    ) == Plan(7, (64, 64))


def test_a_slice_that_does_not_fit_is_cut_into_tiles_within_the_memory(
    tiny_network: RestoreRWKV,
) -> None:
    memory = 200 * 240 * inference.bytes_per_pixel(tiny_network)
    plan = inference.plan(tiny_network, (400, 500), memory)
    assert plan.batch == 1
    assert plan.tile[0] * plan.tile[1] * inference.bytes_per_pixel(tiny_network) <= memory
    assert plan.tile[0] >= 192
    assert plan.tile[1] >= 192


def test_too_little_memory_says_how_much_is_needed() -> None:
    network = RestoreRWKV(PRESETS["light"])
    least = math.ceil(192**2 * inference.bytes_per_pixel(network) / 2**20)
    assert least in (54, 117)  # with the C kernels, which overwrite v, and without
    with pytest.raises(ConfigError, match=f"allow at least {least} MiB"):
        inference.plan(network, (512, 512), 1 << 20)


@pytest.mark.parametrize(
    ("length", "tile"), [(100, 64), (513, 64), (64, 64), (1000, 128), (65, 64)]
)
def test_tiles_cover_an_axis_and_their_weights_fade_smoothly(length: int, tile: int) -> None:
    spans = list(_spans(length, tile))
    weight = torch.zeros(length)
    for start, stop in spans:
        assert stop - start == min(tile, length)
        weight[start:stop] += _fade(start, stop, length)
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    assert weight.min() > 0.4
    for (_, stop), (start, _) in pairwise(spans):
        assert stop - start >= tile // 4


def test_tiles_of_a_local_network_equal_the_whole(tiny_network: RestoreRWKV) -> None:
    """Where the network sees nothing but the pixel itself, blending must change nothing."""
    for parameter in tiny_network.parameters():
        parameter.data.zero_()
    image = torch.rand(1, 1, 90, 150)
    tiled = inference.run(tiny_network, image, Plan(1, (64, 64)))
    torch.testing.assert_close(tiled, image, rtol=1e-6, atol=1e-6)


def test_progress_ends_at_all_slices(tiny_network: RestoreRWKV) -> None:
    calls: list[tuple[int, int]] = []
    slices = torch.rand(5, 1, 16, 16)
    inference.run(tiny_network, slices, Plan(2, (16, 16)), lambda *call: calls.append(call))
    assert calls == [(2, 5), (4, 5), (5, 5)]


@pytest.mark.parametrize("message", ["CUDA out of memory.", "can't allocate memory: you tried"])
def test_a_machine_without_the_memory_is_told_apart_from_a_bug(
    tiny_network: RestoreRWKV, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    def fail(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError(message)

    monkeypatch.setattr(tiny_network, "forward", fail)
    with pytest.raises(ConfigError, match="allow less"):
        inference.run(tiny_network, torch.rand(1, 1, 16, 16), Plan(1, (16, 16)))
    message = "shapes cannot be multiplied"
    with pytest.raises(RuntimeError, match=message):
        inference.run(tiny_network, torch.rand(1, 1, 16, 16), Plan(1, (16, 16)))
