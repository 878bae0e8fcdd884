"""FDG-like activity and attenuation maps of a head.

They contain no real PET data: the anatomy is measured, the uptake is assigned, and all images made
from these maps are *simulated* PET.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from restore_rwkv.errors import OperatorError
from restore_rwkv.io import Volume
from restore_rwkv.physics.pet.head import Head

Point = tuple[float, float, float]

# Linear attenuation at 511 keV in 1/mm (NIST XCOM: water 0.0096, cortical bone 0.0168; the skull
# with its marrow lies in between).
MU_SOFT = 0.0096
MU_BONE = 0.0145


@dataclass(frozen=True)
class Lesion:
    """A sphere in which uptake is multiplied.

    Attributes:
        centre: (x, y, z) in mm, RAS+ world.
        radius: in mm.
        factor: ratio of the uptake to that of the tissue; above 1 is hot, below 1 is cold.
    """

    centre: Point
    radius: float
    factor: float


@dataclass(frozen=True)
class Mode:
    """One wave of regional variation, `amplitude * cos(wave . position + phase)`.

    Attributes:
        wave: wave vector in rad / mm, RAS+ world.
        phase: in rad.
        amplitude: relative, at least 0.
    """

    wave: Point
    phase: float
    amplitude: float


@dataclass(frozen=True)
class Uptake:
    """Random draw for one activity map; `dataclasses.asdict` makes it ready for JSON.

    Attributes:
        grey: SUV of grey matter.
        white: SUV of white matter.
        csf: SUV of cerebrospinal fluid.
        soft: SUV of scalp, muscle and marrow.
        modes: smooth regional variation; amplitudes sum to at most 0.15.
        lesions: spheres in the brain.
    """

    grey: float
    white: float
    csf: float
    soft: float
    modes: tuple[Mode, ...] = ()
    lesions: tuple[Lesion, ...] = ()

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Uptake:
        """Restore an uptake from the record that `dataclasses.asdict` made, also through JSON."""
        modes = tuple(Mode(**{**m, "wave": tuple(m["wave"])}) for m in record["modes"])
        lesions = tuple(Lesion(**{**m, "centre": tuple(m["centre"])}) for m in record["lesions"])
        return cls(**{**record, "modes": modes, "lesions": lesions})


def sample_uptake(head: Head, generator: torch.Generator) -> Uptake:
    """Draw the uptake of an FDG scan: ratio of grey to white matter 2.6 to 3.8, 0 to 4 lesions.

    Args:
        head: anatomy; lesions are centred on its grey and white matter.
        generator: the only source of randomness, on the CPU.

    Returns:
        A record in SUV and mm, from which `activity_map` always computes the same map.

    Raises:
        OperatorError: the head contains no brain tissue.
    """

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))

    places = np.argwhere(head.grey + head.white > 0.5)
    if len(places) == 0:
        raise OperatorError("head: no voxel is grey or white matter; segment a T1 of a whole head")
    white = uniform(2.6, 3.4)
    modes = []
    for _ in range(4):
        x, y, z = (uniform(-1, 1) * 2 * math.pi / 90 for _ in range(3))  # 52 mm and longer
        modes.append(Mode((x, y, z), uniform(0, 2 * math.pi), uniform(0.015, 0.0375)))
    lesions = []
    for _ in range(int(torch.randint(0, 5, (), generator=generator))):
        place = places[int(torch.randint(len(places), (), generator=generator))]
        x, y, z = (head.affine[:3, :3] @ place + head.affine[:3, 3]).tolist()
        hot = uniform(0, 1) < 0.5
        factor = uniform(1.4, 2.2) if hot else uniform(0.3, 0.7)
        lesions.append(Lesion((x, y, z), uniform(4, 12), factor))
    return Uptake(
        grey=white * uniform(2.6, 3.8),
        white=white,
        csf=uniform(0.3, 0.7),
        soft=uniform(1.0, 2.0),
        modes=tuple(modes),
        lesions=tuple(lesions),
    )


def activity_map(head: Head, uptake: Uptake) -> Volume:
    """Activity of a head: `sum of fraction x uptake`, times regional variation and lesions.

    Returns:
        (X, Y, Z) float32 in SUV, at least 0, on the grid of the head, modality "PT".
        `np.moveaxis(data, 2, 0)` is the stack of axial slices for `simulate_pair`.
    """
    tissue = (
        uptake.grey * head.grey
        + uptake.white * head.white
        + uptake.csf * head.csf
        + uptake.soft * (head.soft + 0.5 * head.bone)  # marrow
    )
    index = np.meshgrid(*(np.arange(n) for n in tissue.shape), indexing="ij", sparse=True)
    # The grid is aligned with the world (see Head), so each coordinate depends on one axis only.
    world = [head.affine[a, a] * index[a] + head.affine[a, 3] for a in range(3)]
    gain = np.ones(tissue.shape, dtype=np.float32)
    for mode in uptake.modes:
        angle = sum(k * x for k, x in zip(mode.wave, world, strict=True)) + mode.phase
        gain += (mode.amplitude * np.cos(angle)).astype(np.float32)
    voxel = float(head.affine[0, 0])
    for lesion in uptake.lesions:
        squares = sum((x - c) ** 2 for x, c in zip(world, lesion.centre, strict=True))
        # Voxels at the surface belong to the sphere in part.
        part = np.clip((lesion.radius - np.sqrt(squares)) / voxel + 0.5, 0, 1)
        gain *= (1 + (lesion.factor - 1) * part).astype(np.float32)
    return Volume(np.maximum(tissue * gain, 0), head.affine, unit="SUV", modality="PT")


def attenuation_map(head: Head) -> Volume:
    """Linear attenuation at 511 keV of a head.

    Returns:
        (X, Y, Z) float32 in 1/mm, from 0 (air) to 0.0145 (skull), on the grid of the head.
    """
    soft = head.grey + head.white + head.csf + head.soft
    return Volume(MU_SOFT * soft + MU_BONE * head.bone, head.affine, unit="1/mm")
