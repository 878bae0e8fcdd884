"""Random training pairs of low and full quality, cropped from prepared sets."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restore_rwkv.data import PreparedSet, Stack
from restore_rwkv.data.slice import Slice
from restore_rwkv.data.slices import has_signal
from restore_rwkv.errors import ConfigError
from restore_rwkv.tasks import FOREGROUND_LEVEL
from restore_rwkv.training.noise import Realisations, stored_level
from restore_rwkv.training.recipe import Recipe

Image = NDArray[np.float32]

_CROP_DRAWS = 8
_MARGIN = 0.05  # of the metric range, on both sides


class Batch(NamedTuple):
    """Training pairs in network values, with images (B, 1, crop, crop).

    Attributes:
        low: low-quality images.
        high: full-quality images.
        weight: weight of each pixel in the loss; None where the recipe weights all alike.
        noise_level: level of the noise of each image (B,); None for a network that is not told.
    """

    low: Tensor
    high: Tensor
    weight: Tensor | None = None
    noise_level: Tensor | None = None


@dataclass(frozen=True)
class Draw:
    """All random choices of one training pair.

    Attributes:
        slice: slice that the pair is cropped from.
        turns: number of quarter turns of the slice, 0 to 3.
        mirrored: whether the turned slice is mirrored left to right.
        row: first row of the crop in the turned, mirrored and padded slice.
        column: first column of the crop.
        gain: factor that both images are multiplied by.
        gamma: exponent of the contrast curve of both images; 1 changes nothing.
        noise: standard deviation of the noise in the unit of the task; 0 for the stored noise.
        angle: how two realisations of it are mixed, as `cos(angle) n1 + sin(angle) n2`, in radians.
        second: the slice with the second realisation; None for one realisation, whose sign is that
            of the cosine.
    """

    slice: Slice
    turns: int = 0
    mirrored: bool = False
    row: int = 0
    column: int = 0
    gain: float = 1.0
    gamma: float = 1.0
    noise: float = 0.0
    angle: float = 0.0
    second: Slice | None = None

    @property
    def name(self) -> str:
        """Slice and position of the crop, for messages."""
        return f"{self.slice.name} at row {self.row}, column {self.column}"


class PairSampler:
    """Draws random training pairs that depend only on the seed and the iteration.

    A slice that is degraded on reading is rotated, mirrored and contrast-changed before that: a
    block of k-space with an even number of samples is not symmetric, so mirroring a degraded slice
    would give another image. Both images get the same crop and gain. Slices smaller than the crop
    are padded by reflection.

    Args:
        sets: prepared sets of the recipe's tasks.
        recipe: how pairs are drawn and scaled.

    Raises:
        ConfigError: a task has no slices to train on.

    Example:
        >>> sampler = PairSampler(find_sets([Path("data")], ("mri-sr",)), recipe)  # doctest: +SKIP
        >>> low, high, *_ = sampler.batch(sampler.draws(iteration=0))  # doctest: +SKIP
    """

    def __init__(self, sets: Sequence[PreparedSet], recipe: Recipe) -> None:
        self.recipe = recipe
        self.pools = _pools(sets, recipe)
        self._noise = (
            Realisations(entry for pool in self.pools for entry in pool.stacks)
            if recipe.data.noise
            else None
        )

    def draws(self, iteration: int) -> list[Draw]:
        """Draw the random choices of a batch; they depend only on the seed and the iteration."""
        generator = np.random.default_rng([self.recipe.seed, iteration])
        size = self.recipe.training.batch_size
        crop = self.recipe.data.crop_at(iteration)
        first = iteration * size
        return [
            self._draw(generator, self.pools[(first + i) % len(self.pools)], crop)
            for i in range(size)
        ]

    def batch(self, draws: Sequence[Draw], crop: int | None = None) -> Batch:
        """Make the pairs of some draws."""
        crop = crop or self.recipe.data.crop
        images = zip(*(self._pair(draw, crop) for draw in draws), strict=True)
        batch = Batch(*(torch.from_numpy(np.stack(image)[:, None]) for image in images))
        if not self.recipe.network.noise_level:
            return batch
        levels = torch.tensor([self._level(draw) for draw in draws], dtype=torch.float32)
        return batch._replace(noise_level=levels)

    def _draw(self, generator: np.random.Generator, pool: _Pool, crop: int) -> Draw:
        data = self.recipe.data
        source = pool.draw(generator)
        turns = mirrored = 0
        if data.augment:
            turns, mirrored = int(generator.integers(4)), int(generator.integers(2))
        gain, gamma = (_log_uniform(generator, *bounds) for bounds in (data.gain, data.gamma))
        if "low" in source.stack.files:
            gamma = 1.0
        shape = source.stack.shape[1:][:: -1 if turns % 2 else 1]
        rows, columns = (max(length, crop) for length in shape)
        seen = None  # the slice is read only where air is to be avoided
        if data.avoid_air:
            seen = _padded(_turned(source.high(), turns, bool(mirrored)), crop)
        row = column = 0
        for _ in range(_CROP_DRAWS):
            row = int(generator.integers(rows - crop + 1))
            column = int(generator.integers(columns - crop + 1))
            if seen is None or not is_air(seen[row : row + crop, column : column + crop], source):
                break
        draw = Draw(source, turns, bool(mirrored), row, column, gain, gamma)
        rules = source.prepared.task.rules
        if self._noise is None or data.noise is None or not rules.additive_noise:
            return draw
        return dataclasses.replace(
            draw,
            noise=_log_uniform(generator, *data.noise),
            angle=float(generator.uniform(0, 2 * np.pi)),
            second=self._noise.another(source, generator),
        )

    def _pair(self, draw: Draw, crop: int) -> tuple[Image, ...]:
        """Make low and high quality, and the weights of the loss unless all pixels weigh alike."""
        source, stack = draw.slice, draw.slice.stack
        rule = self.recipe.rule(source.prepared.task)
        whole = source.high()
        high = _turned(whole, draw.turns, draw.mirrored)
        if "low" in stack.files:
            low = _turned(self._low(draw, whole), draw.turns, draw.mirrored)
        else:
            level = np.float32(FOREGROUND_LEVEL * stack.robust_scale)
            high = contrast(high, level, draw.gamma)
            low = source.prepared.task.rules.degrade_slice(high, source.prepared.factor)
        rows = slice(draw.row, draw.row + crop)
        columns = slice(draw.column, draw.column + crop)
        scaling = stack.scaling(rule)
        low, high = (_padded(image, crop)[rows, columns] for image in (low, high))
        pair = tuple(scaling.apply(image) * np.float32(draw.gain) for image in (low, high))
        outside = self.recipe.training.outside
        if outside == 1:
            return pair
        return (*pair, _weight(high, source.prepared.task.metric_range, outside))

    def _level(self, draw: Draw) -> float:
        """Return the level of the noise of a draw, which grows by 1 where the noise doubles."""
        level = stored_level(draw.slice.prepared, draw.slice.stack)
        if self._noise is None or not draw.noise:
            return level
        return level + math.log2(draw.noise / self._noise.sigma(draw.slice))

    def _low(self, draw: Draw, high: Image) -> Image:
        """Return the stored low-quality slice of a draw, or new noise on the full-quality one."""
        if self._noise is None or not draw.noise:
            return draw.slice.low()
        return self._noise.low(draw.slice, draw.second, high, sigma=draw.noise, angle=draw.angle)


@dataclass(frozen=True, eq=False)
class _Pool:
    """Stacks that one share of the batches is drawn from, with their probabilities."""

    stacks: Sequence[tuple[PreparedSet, Stack]]
    probabilities: NDArray[np.float64]

    def draw(self, generator: np.random.Generator) -> Slice:
        prepared, stack = self.stacks[int(generator.choice(len(self.stacks), p=self.probabilities))]
        return Slice(prepared, stack, int(generator.integers(stack.shape[0])))


def _weight(high: Image, metric_range: tuple[float, float], outside: float) -> Image:
    """Weights (H, W) of the loss: 1 where the target counts in the metrics, else `outside`."""
    low, top = metric_range
    margin = _MARGIN * (top - low)
    inside = (high >= low - margin) & (high <= top + margin)
    weight: Image = np.where(inside, np.float32(1), np.float32(outside))
    return weight


def _pools(sets: Sequence[PreparedSet], recipe: Recipe) -> list[_Pool]:
    """Make one pool of all slices, or one pool per task for equal shares of each batch."""
    stacks = {
        task.name: [
            (prepared, stack)
            for prepared in sets
            if prepared.task_name == task.name
            for stack in prepared.split("train")
        ]
        for task in recipe.tasks
    }
    for name, found in stacks.items():
        if not found:
            raise ConfigError(f"{name}: its sets have no volume for training; prepare some")
    if recipe.data.balance == "slices":
        every = [entry for found in stacks.values() for entry in found]
        return [_Pool(every, _shares([s.shape[0] for _, s in every], lambda n: n))]
    return [
        _Pool(found, _shares([s.shape[0] for _, s in found], np.sqrt)) for found in stacks.values()
    ]


def _shares(
    counts: list[int], weight: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> NDArray[np.float64]:
    weights = weight(np.asarray(counts, np.float64))
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


def contrast(image: Image, level: np.float32, gamma: float) -> Image:
    """Apply the monotone curve `level * (image / level)^gamma`, which keeps 0 and `level`."""
    if gamma == 1:
        return image
    curved: NDArray[Any] = level * (np.maximum(image, 0) / level) ** np.float32(gamma)
    return curved


def is_air(image: Image, source: Slice) -> bool:
    """Return whether an image has no signal, by the scaling of the volume it is cropped from."""
    task = source.prepared.task
    return not has_signal(image, task, source.stack.scaling(task.scaling))


def _log_uniform(generator: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(generator.uniform(np.log(low), np.log(high))))


def _turned(image: Image, turns: int, mirrored: bool) -> Image:
    turned: Image = np.rot90(image, turns)
    return turned[:, ::-1] if mirrored else turned


def _padded(image: Image, size: int) -> Image:
    """Pad an image to at least `size` rows and columns by reflection at the far borders."""
    missing = [(0, max(0, size - length)) for length in image.shape]
    return np.pad(image, missing, mode="symmetric") if np.any(missing) else image
