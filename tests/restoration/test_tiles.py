from __future__ import annotations

import dataclasses
import math
from itertools import pairwise

import pytest
import torch

from restore_rwkv.errors import ConfigError
from restore_rwkv.model import PRESETS, RestoreRWKV
from restore_rwkv.ops import available_backends
from restore_rwkv.restoration.tiles import (
    Tiling,
    bytes_per_pixel,
    choose_tiling,
    fade,
    run,
    spans,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize("patch", [2, 4])
def test_tiles_of_larger_patches_are_multiples_of_their_stride(patch: int) -> None:
    config = dataclasses.replace(PRESETS["light"], patch=patch)
    plain = bytes_per_pixel(PRESETS["light"], CPU)
    assert bytes_per_pixel(config, CPU) == plain / patch**2
    tiling = choose_tiling(config, CPU, (1, 1000, 900), 400 * 400 * bytes_per_pixel(config, CPU))
    assert tiling.tile != (1000, 900)
    assert all(side % (8 * patch) == 0 for side in tiling.tile)


def test_batches_give_what_single_slices_give(tiny_network: RestoreRWKV) -> None:
    slices = torch.rand(5, 1, 24, 19)
    batched = torch.cat([run(tiny_network, part, (24, 19)) for part in slices.split(2)])
    single = torch.cat([tiny_network(image[None]) for image in slices])
    torch.testing.assert_close(batched, single, rtol=0, atol=1e-5)


def test_as_many_whole_slices_run_together_as_the_memory_holds(tiny_network: RestoreRWKV) -> None:
    gpu = torch.device("cuda")
    for device, most in ((CPU, 8), (gpu, 9)):  # on a CPU 8 x 64 x 64, which stay in its caches
        slice_bytes = 64 * 64 * bytes_per_pixel(tiny_network.config, device)
        for count in (1, 7):
            tiling = choose_tiling(tiny_network.config, device, (9, 64, 64), count * slice_bytes)
            assert tiling == Tiling(count, (64, 64), count * slice_bytes)
        whole = choose_tiling(tiny_network.config, device, (9, 64, 64), 2 << 30)
        assert whole == Tiling(most, (64, 64), most * slice_bytes)
    alone = choose_tiling(tiny_network.config, CPU, (9, 512, 512), 2 << 30)
    assert (alone.batch, alone.tile) == (1, (512, 512))


@pytest.mark.parametrize(
    ("shape", "allowed", "tile", "cost"),
    [
        ((512, 512), 512 * 512 - 1, (512, 288), 1.125),  # two tiles, not four
        ((512, 512), 240 * 240, (208, 208), 1.486),
        ((180, 700), 180 * 300, (180, 280), 1.2),
        ((200, 200), 199 * 199, (200, 192), 1.92),
    ],
)
def test_a_slice_is_cut_into_as_few_tiles_as_needed(
    shape: tuple[int, int], allowed: int, tile: tuple[int, int], cost: float
) -> None:
    config = PRESETS["light"]
    tiling = choose_tiling(config, CPU, (3, *shape), allowed * bytes_per_pixel(config, CPU))
    counts = [len(list(spans(*lengths))) for lengths in zip(shape, tile, strict=True)]
    assert tiling.tile == tile
    assert math.prod(counts) * math.prod(tile) / math.prod(shape) == pytest.approx(cost, abs=1e-3)


def test_a_slice_that_does_not_fit_is_cut_into_tiles_within_the_memory(
    tiny_network: RestoreRWKV,
) -> None:
    per_pixel = bytes_per_pixel(tiny_network.config, CPU)
    memory = 200 * 240 * per_pixel
    tiling = choose_tiling(tiny_network.config, CPU, (3, 400, 500), memory)
    assert tiling.batch == 1
    assert tiling.tile[0] * tiling.tile[1] * per_pixel <= memory
    assert tiling.tile[0] >= 192
    assert tiling.tile[1] >= 192


def test_too_little_memory_says_how_much_is_needed() -> None:
    least = 34 if available_backends()["cpu"] else 117
    with pytest.raises(ConfigError, match=f"allow at least {least} MiB"):
        choose_tiling(PRESETS["light"], CPU, (1, 512, 512), 1 << 20)


@pytest.mark.parametrize(
    ("length", "tile"), [(100, 64), (513, 64), (64, 64), (1000, 128), (65, 64)]
)
def test_tiles_cover_an_axis_and_their_weights_fade_smoothly(length: int, tile: int) -> None:
    pieces = list(spans(length, tile))
    weight = torch.zeros(length)
    for start, stop in pieces:
        assert stop - start == min(tile, length)
        weight[start:stop] += fade(start, stop, length)
    assert pieces[0][0] == 0
    assert pieces[-1][1] == length
    assert weight.min() > 0.4
    for (_, stop), (start, _) in pairwise(pieces):
        assert stop - start >= tile // 4


def test_tiles_of_a_local_network_equal_the_whole(tiny_network: RestoreRWKV) -> None:
    """Where the network sees nothing but the pixel itself, blending must change nothing."""
    for parameter in tiny_network.parameters():
        parameter.data.zero_()
    image = torch.rand(1, 1, 90, 150)
    tiled = run(tiny_network, image, (64, 64))
    torch.testing.assert_close(tiled, image, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("message", ["CUDA out of memory.", "can't allocate memory: you tried"])
def test_a_machine_without_the_memory_is_told_apart_from_a_bug(
    tiny_network: RestoreRWKV, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    def fail(_: torch.Tensor, level: float | None) -> torch.Tensor:
        raise RuntimeError(message)

    monkeypatch.setattr(tiny_network, "forward", fail)
    with pytest.raises(ConfigError, match="allow less"):
        run(tiny_network, torch.rand(1, 1, 16, 16), (16, 16))
    message = "shapes cannot be multiplied"
    with pytest.raises(RuntimeError, match=message):
        run(tiny_network, torch.rand(1, 1, 16, 16), (16, 16))
