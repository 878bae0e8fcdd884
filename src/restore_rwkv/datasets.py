"""Training and validation pairs for MRI, made from volumes by a model of the scanner."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restore_rwkv.errors import ConfigError
from restore_rwkv.scaling import Scaling, robust_scaling
from restore_rwkv.subjects import Planes, Subject, has_signal, training_slices

Physics = Callable[[Tensor], Tensor]

_CROP_DRAWS = 8
_GAIN_RANGE = (0.5, 1.2)


@dataclass(frozen=True)
class Draw:
    """All that chance decides about one training sample.

    Attributes:
        subject: position in the list of subjects.
        axis: array axis the slice is taken across.
        index: number of the slice along that axis.
        turns: quarter turns of the slice, 0 to 3.
        mirrored: whether the turned slice is mirrored left to right.
        row: first row of the crop in the turned, mirrored and padded slice.
        column: first column of the crop.
        gain: factor on the network's values of both images.
    """

    subject: int
    axis: int
    index: int
    turns: int
    mirrored: bool
    row: int
    column: int
    gain: float


@dataclass(frozen=True, eq=False)
class ValidationPair:
    """One whole slice for validation by the paper's protocol.

    Attributes:
        name: subject and slice.
        low: (1, 1, H, W), float32, physical units.
        high: (1, 1, H, W), float32, physical units, the truth.
        scaling: onto the network's values, from the low-quality slices of the whole volume, as
            restoring a scan would find it.
    """

    name: str
    low: Tensor
    high: Tensor
    scaling: Scaling


class PairSampler:
    """Random training pairs, the same for the same seed and iteration whenever they are asked for.

    A subject is drawn with a probability that goes with the square root of its number of usable
    slices, so that a short series is seen more often than its size alone would give, then a slice
    of it. The whole slice is turned, mirrored and only then degraded: a block of k-space with an
    even number of samples is not symmetric, so mirroring a degraded slice would not be the same.
    Both images get the same crop and gain. Slices smaller than the crop are padded by reflection
    after they are degraded.

    Args:
        subjects: volumes to train on; their order is part of what the seed means.
        physics: degrades a slice (H, W), float32; it must commute with a gain.
        crop: rows and columns of a crop.
        batch_size: pairs in a batch.
        planes: "all" planes with spacings alike within a factor of 1.5, or "acquisition" alone.
        seed: 0 or more.

    Raises:
        ConfigError: a number is out of range, or no subject has a slice with signal.

    Example:
        >>> sampler = PairSampler(load_subjects(["t1.nii.gz"]), kspace_crop)  # doctest: +SKIP
        >>> low, high = sampler.batch(iteration=0)  # doctest: +SKIP
    """

    def __init__(
        self,
        subjects: Sequence[Subject],
        physics: Physics,
        crop: int = 128,
        batch_size: int = 4,
        planes: Planes = "all",
        seed: int = 0,
    ) -> None:
        if crop < 1 or batch_size < 1 or seed < 0:
            raise ConfigError(
                f"crop {crop}, batch size {batch_size}, seed {seed}: give crop and batch size of "
                "at least 1 and a seed of at least 0"
            )
        self.subjects = list(subjects)
        self.physics = physics
        self.crop = crop
        self.batch_size = batch_size
        self.seed = seed
        self.slices = [training_slices(subject, planes) for subject in self.subjects]
        weights = np.sqrt([len(slices) for slices in self.slices])
        if weights.sum() == 0:
            raise ConfigError("no subject has a slice to train on; give volumes with signal")
        self.probabilities = weights / weights.sum()

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches 0, 1, 2, ... without end."""
        return (self.batch(iteration) for iteration in count())

    def batch(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Batch (low, high), each (B, 1, crop, crop), float32, in the network's values."""
        pairs = [self.pair(draw) for draw in self.draws(iteration)]
        low, high = (torch.stack(images)[:, None] for images in zip(*pairs, strict=True))
        return low, high

    def draws(self, iteration: int) -> list[Draw]:
        """What chance decides for the samples of a batch; depends on seed and iteration alone."""
        generator = np.random.default_rng([self.seed, iteration])
        return [self._draw(generator) for _ in range(self.batch_size)]

    def pair(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """The pair (low, high) that a draw describes, each (crop, crop)."""
        subject = self.subjects[draw.subject]
        high = _turned(subject, draw.axis, draw.index, draw.turns, draw.mirrored)
        low = self.physics(torch.from_numpy(high.copy(order="C"))).numpy()
        rows = slice(draw.row, draw.row + self.crop)
        columns = slice(draw.column, draw.column + self.crop)
        factor = np.float32(draw.gain / subject.scaling.scale)
        cropped = (_padded(image, self.crop)[rows, columns] * factor for image in (low, high))
        first, second = (torch.from_numpy(image) for image in cropped)
        return first, second

    def _draw(self, generator: np.random.Generator) -> Draw:
        position = int(generator.choice(len(self.subjects), p=self.probabilities))
        subject, slices = self.subjects[position], self.slices[position]
        axis, index = slices[int(generator.integers(len(slices)))]
        turns, mirrored = int(generator.integers(4)), bool(generator.integers(2))
        gain = float(np.exp(generator.uniform(*np.log(_GAIN_RANGE))))
        high = _padded(_turned(subject, axis, index, turns, mirrored), self.crop)
        row = column = 0
        for _ in range(_CROP_DRAWS):
            row = int(generator.integers(high.shape[0] - self.crop + 1))
            column = int(generator.integers(high.shape[1] - self.crop + 1))
            crop = high[row : row + self.crop, column : column + self.crop]
            if has_signal(crop, subject.scaling):
                break
        return Draw(position, axis, index, turns, mirrored, row, column, gain)


def validation_pairs(
    subjects: Sequence[Subject], physics: Physics, per_subject: int = 8
) -> list[ValidationPair]:
    """Fixed list of whole slices out of the held-out slabs, evenly spread over each slab.

    Args:
        subjects: volumes; those without a held-out slab give nothing.
        physics: degrades a slice (H, W), float32.
        per_subject: slices from each slab, or all of a slab that has fewer.
    """
    pairs = []
    for subject in subjects:
        slab = subject.held_out
        if slab is None:
            continue
        stack = torch.from_numpy(np.moveaxis(subject.data, slab.axis, 0).copy(order="C"))
        low = torch.stack([physics(image) for image in stack])
        scaling = robust_scaling(low.numpy())
        wanted = min(per_subject, slab.stop - slab.start)
        for index in np.linspace(slab.start, slab.stop - 1, wanted).round().astype(int).tolist():
            name = f"{subject.name} axis {slab.axis} slice {index}"
            # Copies, so that the list does not keep whole volumes in memory.
            given, truth = (image[None, None, index].clone() for image in (low, stack))
            pairs.append(ValidationPair(name, given, truth, scaling))
    return pairs


def _turned(
    subject: Subject, axis: int, index: int, turns: int, mirrored: bool
) -> NDArray[np.float32]:
    image = np.rot90(subject.slice_at(axis, index), turns)
    return image[:, ::-1] if mirrored else image


def _padded(image: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Image of at least `size` rows and columns, reflected at the far borders."""
    missing = [(0, max(0, size - length)) for length in image.shape]
    return np.pad(image, missing, mode="reflect") if np.any(missing) else image
