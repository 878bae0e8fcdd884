"""Noise of training pairs: its level, and for CT new noise from the stored realisations."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from restore_rwkv.data import PreparedSet, Stack
from restore_rwkv.data.slice import Slice
from restore_rwkv.errors import ConfigError
from restore_rwkv.tasks import AddedNoise

Image = NDArray[np.float32]

_EVERY = 4  # slices between those in which the noise is measured
_MAD = 1.4826  # standard deviation of a normal distribution over its median absolute deviation


class Realisations:
    """The stored realisations of each slice, mixed and scaled to a wanted standard deviation.

    The noise n of a realisation is its low-quality slice minus the full-quality one. If it is
    Gaussian and n1 and n2 are independent, `cos(t) n1 + sin(t) n2` is a new realisation with the
    same spectrum for any t. Stacks with the same full-quality file are realisations of one scan.

    Args:
        stacks: sets and their stacks; those whose noise is not additive are left out.

    Raises:
        ConfigError: a stack has no noise.
    """

    def __init__(self, stacks: Iterable[tuple[PreparedSet, Stack]]) -> None:
        self._of_scan: dict[str, list[tuple[PreparedSet, Stack]]] = {}
        self._sigma: dict[tuple[Path, str], float] = {}
        for prepared, stack in stacks:
            if prepared.task.rules.additive_noise:
                self._of_scan.setdefault(stack.sha256["high"], []).append((prepared, stack))
                self._sigma[prepared.folder, stack.name] = noise_sigma(prepared, stack)

    def sigma(self, source: Slice) -> float:
        """Standard deviation of the stored noise of a slice's stack, from `noise_sigma`."""
        return self._sigma[source.prepared.folder, source.stack.name]

    def another(self, source: Slice, generator: np.random.Generator) -> Slice | None:
        """Draw another realisation of a slice; None if there is none."""
        others = [
            (prepared, stack)
            for prepared, stack in self._of_scan[source.stack.sha256["high"]]
            if (prepared.folder, stack.name) != (source.prepared.folder, source.stack.name)
        ]
        if not others:
            return None
        return Slice(*others[int(generator.integers(len(others)))], source.index)

    def low(
        self, first: Slice, second: Slice | None, high: Image, *, sigma: float, angle: float
    ) -> Image:
        """Return a low-quality slice (H, W) with new noise, in the unit of the task.

        Args:
            first: one realisation.
            second: another realisation of the same slice; None to change only the sign of the first
                to that of the cosine.
            high: the slice in full quality (H, W).
            sigma: standard deviation of the noise, as `noise_sigma` measures it in the whole stack.
            angle: t in radians.
        """
        noise = self._unit_noise(first, high)
        if second is None:
            mixed = math.copysign(sigma, math.cos(angle)) * noise
        else:
            other = self._unit_noise(second, high)
            mixed = sigma * (math.cos(angle) * noise + math.sin(angle) * other)
        return (high + mixed).astype(np.float32)

    def _unit_noise(self, source: Slice, high: Image) -> Image:
        unit: Image = (source.low() - high) / np.float32(self.sigma(source))
        return unit


def stored_level(prepared: PreparedSet, stack: Stack) -> float:
    """Return the level of the noise of a stack that a network is told; 0 if that is not noise."""
    if prepared.task.rules.noise_unit is None:
        return 0.0
    return AddedNoise.told(prepared.factor_of(stack)).level


def noise_sigma(prepared: PreparedSet, stack: Stack) -> float:
    """Return the standard deviation of the noise that a stack was degraded with.

    1.4826 times the median absolute difference of both qualities, in the unit of the task, over the
    pixels whose full-quality value lies in the task's `metric_range`: for CT, soft tissue.

    Raises:
        ConfigError: both qualities are equal there.
    """
    lowest, highest = prepared.task.metric_range
    differences = []
    for index in range(0, stack.shape[0], _EVERY):
        source = Slice(prepared, stack, index)
        high = source.high()
        counted = (high > lowest) & (high < highest)
        differences.append(np.abs(source.low() - high)[counted])
    values = np.concatenate(differences)
    sigma = _MAD * float(np.median(values)) if values.size else 0.0
    if sigma == 0:
        raise ConfigError(
            f"{stack.name}: has no noise between {lowest:g} and {highest:g} {prepared.task.unit} "
            "that data.noise could scale; leave out that key, or prepare other data"
        )
    return sigma
