"""What a restorer gains on scans whose truth is known, by the paper's protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import affine_transform
from torch import Tensor

from restore_rwkv.io import Volume
from restore_rwkv.metrics import MeanScore, mean_score, paper_score
from restore_rwkv.physics.mri import kspace_crop, low_resolution
from restore_rwkv.restoration import Restorer, Settings, slice_axis

Images = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Images (X, Y, Z) of one scan, and their scores against its truth by name.

    Attributes:
        volumes: "zero-filled" (what the network is given), "cubic" (spline interpolation of the
            coarse image), "restored"; in the unit of the scan.
        scores: the same names; means over the slices of the acquisition plane.
        slice_axis: array axis across those slices.
    """

    volumes: dict[str, Volume]
    scores: dict[str, MeanScore]
    slice_axis: int


def evaluate(truth: Volume, restorer: Restorer, settings: Settings | None = None) -> Evaluation:
    """Degrade a sharp scan as the task says, restore it, and score each image against the scan.

    Slices lie in the plane of finest spacing. Each is scored by the paper's protocol.

    Args:
        truth: a scan of full quality, in physical units.
        restorer: for "mri-sr".
        settings: how to restore; the plane is chosen here.

    Raises:
        InputError: the scan does not suit the task.
    """
    axis = slice_axis(truth)
    factor = restorer.task.factor

    def by_slice(degrade: Callable[[Tensor], Tensor | Images]) -> Volume:
        stack = np.moveaxis(truth.data, axis, 0)
        images = [np.asarray(degrade(torch.from_numpy(image.copy()))) for image in stack]
        return truth.with_data(np.moveaxis(np.stack(images), 0, axis))

    given = by_slice(lambda image: kspace_crop(image, factor))
    volumes = {
        "zero-filled": given,
        "cubic": by_slice(lambda image: cubic(low_resolution(image, factor), image.shape)),
        "restored": restorer(given, replace(settings or Settings(), plane="auto")),
    }
    scores = {
        name: score(volume, truth, axis, restorer.task.metric_range)
        for name, volume in volumes.items()
    }
    return Evaluation(volumes, scores, axis)


def score(volume: Volume, truth: Volume, axis: int, metric_range: tuple[float, float]) -> MeanScore:
    """Mean over slices across `axis` of the paper's scores of a volume against the truth."""
    pairs = zip(np.moveaxis(volume.data, axis, 0), np.moveaxis(truth.data, axis, 0), strict=True)
    return mean_score([paper_score(image, reference, metric_range) for image, reference in pairs])


def cubic(coarse: Tensor, shape: tuple[int, ...]) -> Images:
    """Interpolate a coarse image (h, w) to (H, W) by cubic splines, as viewers do.

    Sample j of an axis of the coarse image lies at j * H / h, as `low_resolution` places it.
    """
    step = [small / large for small, large in zip(coarse.shape, shape, strict=True)]
    interpolated: Images = affine_transform(
        coarse.numpy(), step, output_shape=tuple(shape), order=3, mode="nearest"
    )
    return interpolated
