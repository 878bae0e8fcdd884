"""Tissue maps of a synthetic head whose truth is known, and uptake maps computed from them."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from restore_rwkv.errors import OperatorError
from restore_rwkv.io import Volume
from restore_rwkv.physics.pet.activity import (
    MU_BONE,
    MU_SOFT,
    Lesion,
    Mode,
    Uptake,
    activity_map,
    attenuation_map,
    sample_uptake,
)
from restore_rwkv.physics.pet.head import Head, segment_head

GRID = {"size": 76, "voxel": 3.0}
INTENSITY = {"air": 0, "soft": 1100, "bone": 60, "csf": 250, "grey": 700, "white": 1000}
PLAIN = Uptake(grey=9.0, white=3.0, csf=0.5, soft=1.5)


def tissue_at(x: Any, y: Any, z: Any) -> NDArray[Any]:
    """Name of the tissue at places in mm; not symmetric, with folds, a neck and a ventricle."""

    def ellipsoid(a: float, b: float, c: float, centre: tuple[float, float, float]) -> Any:
        u, v, w = ((p - q) / s for p, q, s in zip((x, y, z), centre, (a, b, c), strict=True))
        return np.sqrt(u**2 + v**2 + w**2)

    radius = ellipsoid(78, 95, 85, (0, 0, 0)) * 85  # approximately mm from the centre
    neck = (np.hypot(x, y + 20) < 50) & (z < 0)
    folds = 54 + 9 * np.sin(x / 5) * np.sin(y / 6) * np.sin(z / 5)
    tissue = np.full(np.broadcast(x, y, z).shape, "air", dtype="<U5")
    tissue[neck | (radius < 85)] = "soft"
    tissue[(radius < 78) & (z > -70)] = "bone"
    tissue[(radius < 71) & (z > -62)] = "csf"
    brain = (radius < 68) & (z > -58)
    tissue[brain] = "grey"
    tissue[brain & (radius < folds)] = "white"
    for side, size in ((-1, 12), (1, 15)):
        tissue[ellipsoid(size, size, size, (side * 22, -5, 0)) < 1] = "grey"
    tissue[ellipsoid(8, 26, 10, (4, 5, 22)) < 1] = "csf"
    return tissue


@pytest.fixture(scope="module")
def scan() -> Volume:
    """T1 of the synthetic head at 2 mm with noise and a bias field, on axes L, P, S."""
    shape = np.array([90, 104, 98])
    affine = np.diag([-2.0, -2.0, 2.0, 1.0])
    affine[:3, 3] = -affine[:3, :3] @ (shape - 1) / 2 + [0, 0, -10]
    grid = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij", sparse=True)
    x, y, z = (affine[a, a] * grid[a] + affine[a, 3] for a in range(3))
    tissue = tissue_at(x, y, z)
    signal = np.select([tissue == name for name in INTENSITY], list(INTENSITY.values()))
    signal = signal * np.exp(0.25 * x / 80 - 0.2 * z / 80)
    noise = np.random.default_rng(0).normal(0, 40, (2, *shape))
    return Volume(np.hypot(signal + noise[0], noise[1]).astype(np.float32), affine)


@pytest.fixture(scope="module")
def head(scan: Volume) -> Head:
    return segment_head(scan, **GRID)


def world_of(head: Head) -> list[NDArray[Any]]:
    grid = np.meshgrid(*(np.arange(n) for n in head.grey.shape), indexing="ij", sparse=True)
    return [head.affine[a, a] * grid[a] + head.affine[a, 3] for a in range(3)]


def overlap(part: NDArray[Any], truth: NDArray[Any]) -> float:
    """Dice coefficient of fractions with a mask."""
    return float(2 * (part * truth).sum() / (part.sum() + truth.sum()))


def small_head(shape: tuple[int, int, int] = (24, 24, 24), **tissues: float) -> Head:
    parts = {name: tissues.get(name, 0.0) for name in ("grey", "white", "csf", "soft", "bone")}
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (-24, -20, 7)
    return Head(
        **{name: np.full(shape, part, np.float32) for name, part in parts.items()}, affine=affine
    )


def test_tissues_are_found_where_they_are(head: Head) -> None:
    truth = tissue_at(*world_of(head))
    found = {name: overlap(getattr(head, name), truth == name) for name in ("grey", "white")}
    found["bone"] = overlap(head.bone, truth == "bone")
    brain = overlap(head.grey + head.white + head.csf, np.isin(truth, ["grey", "white", "csf"]))
    assert found["white"] > 0.93
    assert found["grey"] > 0.89
    assert found["bone"] > 0.73
    assert brain > 0.92


def test_grid_lies_where_its_affine_says(head: Head) -> None:
    places = world_of(head)
    found = head.grey + head.white + head.csf + head.soft + head.bone
    truth = (tissue_at(*places) != "air").astype(float)
    for place in places:
        centres = [float((part * place).sum() / part.sum()) for part in (found, truth)]
        assert centres[0] == pytest.approx(centres[1], abs=0.3)


def test_fractions_share_each_voxel(head: Head) -> None:
    parts = np.stack([head.grey, head.white, head.csf, head.soft, head.bone])
    assert parts.dtype == np.float32
    assert parts.min() > -1e-6
    assert parts.sum(axis=0).max() < 1 + 1e-6
    corner = parts[:, :6, :6]
    assert not corner.any()


def test_slices_cover_the_brain_and_little_else(head: Head) -> None:
    z = world_of(head)[2].ravel()
    assert head.grey.shape[:2] == (76, 76)
    assert z[0] == pytest.approx(-68, abs=6)
    assert z[-1] == pytest.approx(78, abs=6)


def test_axes_override_a_wrong_affine(scan: Volume, head: Head) -> None:
    """The same voxels, stored on axes P, I, R with an affine that does not say so."""
    data = scan.data[::-1, :, ::-1].transpose(1, 2, 0)  # L, P, S -> R, P, I -> P, I, R
    mended = segment_head(Volume(data.copy(), np.diag([2.0, 2.0, 2.0, 1.0])), axes="PIR", **GRID)
    for name in ("grey", "white", "csf", "soft", "bone"):
        np.testing.assert_allclose(getattr(mended, name), getattr(head, name), atol=1e-3)
    shift = mended.affine - head.affine
    assert shift[:3, 3] == pytest.approx([0, 0, 10])  # the override centres the volume


def test_activity_is_the_mixture_of_uptakes() -> None:
    activity = activity_map(small_head(grey=0.5, white=0.3, csf=0.1, bone=0.1), PLAIN)
    np.testing.assert_allclose(activity.data, 4.5 + 0.9 + 0.05 + 0.075, rtol=1e-6)
    assert (activity.unit, activity.modality) == ("SUV", "PT")
    np.testing.assert_array_equal(activity_map(small_head(), PLAIN).data, 0)


def test_lesion_lies_where_its_record_says() -> None:
    head = small_head((40, 40, 40), grey=1.0)
    centre, radius = (10.0, 25.0, 41.0), 9.0
    gain = activity_map(
        head, dataclasses.replace(PLAIN, lesions=(Lesion(centre, radius, 1.8),))
    ).data
    extra = gain / 9 - 1
    x, y, z = world_of(head)
    distance = np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2)
    np.testing.assert_allclose(extra[distance < radius - 1], 0.8, rtol=1e-5)
    np.testing.assert_allclose(extra[distance > radius + 1], 0, atol=1e-6)
    assert extra.sum() * 8 / 0.8 == pytest.approx(4 / 3 * math.pi * radius**3, rel=0.02)


def test_mode_is_a_wave_in_the_world() -> None:
    head = small_head(white=1.0)
    mode = Mode(wave=(0.05, -0.02, 0.03), phase=0.4, amplitude=0.1)
    activity = activity_map(head, dataclasses.replace(PLAIN, modes=(mode,)))
    x, y, z = world_of(head)
    expected = 3 * (1 + 0.1 * np.cos(0.05 * x - 0.02 * y + 0.03 * z + 0.4))
    np.testing.assert_allclose(activity.data, expected, rtol=1e-5)


def test_attenuation_is_that_of_the_tissues() -> None:
    mu = attenuation_map(small_head(grey=0.2, white=0.2, csf=0.2, soft=0.2, bone=0.2))
    np.testing.assert_allclose(mu.data, 0.8 * MU_SOFT + 0.2 * MU_BONE, rtol=1e-6)
    assert mu.unit == "1/mm"
    assert MU_SOFT == 0.0096


def test_drawn_uptakes_are_those_of_fdg(head: Head) -> None:
    x, y, z = world_of(head)
    brain = head.grey + head.white > 0.5
    numbers = set()
    for seed in range(60):
        uptake = sample_uptake(head, torch.Generator().manual_seed(seed))
        assert 2.5 <= uptake.grey / uptake.white <= 4
        assert 0 < uptake.csf < 1 <= uptake.soft <= 2 < uptake.white
        assert sum(mode.amplitude for mode in uptake.modes) <= 0.15
        numbers.add(len(uptake.lesions))
        for lesion in uptake.lesions:
            cx, cy, cz = lesion.centre
            nearest = np.unravel_index(
                np.argmin((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2), brain.shape
            )
            assert brain[nearest]
            assert 4 <= lesion.radius <= 12
            assert 0.3 <= lesion.factor <= 0.7 or 1.4 <= lesion.factor <= 2.2
    assert numbers == {0, 1, 2, 3, 4}


def test_record_survives_json_and_gives_the_same_map(head: Head) -> None:
    uptake = sample_uptake(head, torch.Generator().manual_seed(3))
    assert uptake.lesions
    assert uptake == sample_uptake(head, torch.Generator().manual_seed(3))
    assert uptake != sample_uptake(head, torch.Generator().manual_seed(4))
    again = Uptake.from_dict(json.loads(json.dumps(dataclasses.asdict(uptake))))
    assert again == uptake
    np.testing.assert_array_equal(activity_map(head, again).data, activity_map(head, uptake).data)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"axes": "RAR"}, "axes is 'RAR'"),
        ({"axes": "RA"}, "axes is 'RA'"),
        ({"axes": "RAX"}, "axes is 'RAX'"),
        ({"size": 4}, "at least 8 pixels"),
        ({"voxel": 0.0}, "pixels of 0 mm"),
        ({"voxel": float("nan")}, "pixels of nan mm"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    volume = Volume(np.zeros((8, 8, 8), np.float32), np.eye(4))
    with pytest.raises(OperatorError, match=message):
        segment_head(volume, **settings)


def test_images_without_a_brain() -> None:
    with pytest.raises(OperatorError, match="no affine"):
        segment_head(Volume(np.zeros((8, 8, 8), np.float32)))
    noise = np.random.default_rng(0).random((40, 40, 40)).astype(np.float32)
    for data in (np.zeros_like(noise), noise):
        with pytest.raises(OperatorError, match="no brain found"):
            segment_head(Volume(data, np.diag([4.0, 4.0, 4.0, 1.0])), size=40, voxel=4.0)
    with pytest.raises(OperatorError, match="no voxel is grey or white"):
        sample_uptake(small_head(soft=1.0), torch.Generator())
