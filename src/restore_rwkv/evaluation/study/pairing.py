"""Images in folders: which of them show the same scan, and whether they can be compared."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from restore_rwkv.data.sources.jobs import folders_with_files
from restore_rwkv.errors import InputError
from restore_rwkv.evaluation.study.naming import printable
from restore_rwkv.io import Volume
from restore_rwkv.io.dicom.files import is_dicom
from restore_rwkv.io.kinds import check_source, holds_volume, suffix_of

_OF_A_VOXEL = 0.01  # by which places of the same voxel may differ
_SPAN = 8.0  # ratio of the spans of two images above which they are in different units
_SHIFT = 0.25  # of the span of the truth, by which the median may differ
_CENTRAL = (0.005, 0.5, 0.995)  # quantiles: ends of the span, and the median
_SAMPLES = 1_000_000
_BETTER = 0.5  # share of what does not correlate that is left when an image is turned
_CLEARLY = 0.01  # by which the correlation grows at least
_ALONG = 32  # voxels that are compared along an axis


def find_images(root: Path) -> dict[str, Path]:
    """Find all images below a folder, or the one that a file is.

    Args:
        root: file, folder of images at any depth, or folder with a DICOM series.

    Returns:
        Path by name, sorted by name. The name is the path inside the folder without suffix; that
        of a DICOM series is its folder, "." for `root` itself.

    Raises:
        InputError: there is nothing, or two images have the same name.
    """
    check_source(root)
    if not root.is_dir():
        return {printable(without_suffix(root.name)): root}
    found: dict[str, Path] = {}
    for inside, path in _below(root):
        name = printable(inside)
        if name in found:
            raise InputError(
                f"{root}: {found[name].name} and {path.name} are both {name}; leave one of them out"
            )
        found[name] = path
    if not found:
        raise InputError(f"{root}: holds no images; give the folder that contains them")
    return dict(sorted(found.items()))


def partner(name: str, images: dict[str, Path], count: int) -> Path | None:
    """Return the image of a scan among those of a folder; None if it is missing.

    Args:
        name: of the scan, as `find_images` gives it.
        images: those of the folder.
        count: number of scans; where there is one scan and one image they belong together whatever
            their names.
    """
    if count == 1 and len(images) == 1:
        return next(iter(images.values()))
    return images.get(name)


def without_suffix(name: str) -> str:
    """Return the name of a file without its suffix, of two parts where the last is .gz."""
    return name[: len(name) - len(suffix_of(name))]


def grid_fault(image: Volume, truth: Volume, called: str = "the truth") -> str | None:
    """Return why an image cannot be laid over the truth; None where it can.

    Places are compared where both images have them. The other image is `called` so in the text.
    """
    shape, wanted = image.data.shape, truth.data.shape
    if shape != wanted:
        turned = shape[::-1] == wanted or (1 in shape and sorted(shape) == sorted(wanted))
        remedy = "transpose it" if turned else f"resample it onto the grid of {called}"
        return f"has shape {shape}, {called} {wanted}; {remedy}"
    if image.affine is None or truth.affine is None or truth.spacing is None:
        return None
    corners = np.stack(np.meshgrid(*([0, n - 1] for n in wanted), [1], indexing="ij"))
    moved = (image.affine - truth.affine) @ corners.reshape(4, -1)
    apart = float(np.abs(moved[:3]).max())
    if apart > _OF_A_VOXEL * min(truth.spacing):
        return f"lies {apart:.3g} mm from {called}; resample it onto the grid of {called}"
    return None


def unit_fault(
    image: NDArray[np.generic],
    truth: NDArray[np.generic],
    unit: str,
    called: str = "the truth",
) -> str | None:
    """Return why the values of an image seem to be in another unit than the truth; else None.

    Network values from 0 to 1 beside HU differ in their span, and stored values without the rescale
    intercept in their median.
    """
    low, middle, high = _quantiles(image)
    least, median, most = _quantiles(truth)
    span, wanted = high - low, most - least
    if span <= 0 or wanted <= 0:
        return None  # constant images are in any unit
    far = abs(middle - median) > _SHIFT * max(span, wanted)
    if 1 / _SPAN < span / wanted < _SPAN and not far:
        return None
    return (
        f"its values lie from {low:.4g} to {high:.4g}, those of {called} from {least:.4g} to "
        f"{f'{most:.4g} {unit}'.rstrip()}; give it in the unit of {called}, or force=True if it is"
    )


def turn_fault(
    image: NDArray[np.generic], truth: NDArray[np.generic], called: str = "the truth"
) -> str | None:
    """Return by which reversed or swapped axes an image fits the truth better; else None.

    Compared is the correlation of at most 32 voxels along each axis. An image that is only noisy or
    blurred fits best as it is.
    """
    wanted = _thinned(truth)
    fits = {how: _correlation(_thinned(turned), wanted) for how, turned in _turns(image)}
    best = max(fits, key=lambda how: fits[how])
    apart, least = 1 - fits[""], 1 - fits[best]
    if least > _BETTER * apart or apart - least < _CLEARLY:
        return None
    return (
        f"fits {called} better with {best} (correlation {fits[best]:.2f} instead of "
        f"{fits['']:.2f}); store its axes as those of {called}, or force=True if they are"
    )


def _turns(image: NDArray[np.generic]) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Return the image, and with axes swapped or reversed, with words for that; "" comes first."""
    axes = range(image.ndim)
    swaps = [(a, b) for a, b in itertools.combinations(axes, 2) if image.shape[a] == image.shape[b]]
    long = [axis for axis in axes if image.shape[axis] > 1]
    for swap in ((), *swaps):
        swapped = image.swapaxes(*swap) if swap else image
        for flips in itertools.chain(*(itertools.combinations(long, n) for n in range(4))):
            words = [f"axes {swap[0]} and {swap[1]} swapped"] if swap else []
            words += [f"axis {axis} reversed" for axis in flips]
            yield " and ".join(words), np.flip(swapped, flips)


def _thinned(image: NDArray[np.generic]) -> NDArray[np.float64]:
    places = tuple(slice(None, None, -(-size // _ALONG)) for size in image.shape)
    return image[places].astype(np.float64).ravel()


def _correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    first, second = first - first.mean(), second - second.mean()
    size = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / size if size > 0 else 0.0


def _quantiles(values: NDArray[np.generic]) -> tuple[float, float, float]:
    flat = np.asarray(values).ravel()
    flat = flat[:: max(1, flat.size // _SAMPLES)]
    low, middle, high = np.quantile(flat.astype(np.float64), _CENTRAL).tolist()
    return low, middle, high


def _below(root: Path) -> Iterator[tuple[str, Path]]:
    for here, files in folders_with_files(root):
        inside = here.relative_to(root)
        series = False
        for path in _shown(files):
            if holds_volume(path.name):
                yield (inside / without_suffix(path.name)).as_posix(), path
            elif suffix_of(path.name) not in (".json", ".csv", ".txt") and is_dicom(path):
                series = True
        if series:
            yield inside.as_posix(), here


def _shown(files: Sequence[Path]) -> list[Path]:
    """Return files that are not hidden; of a pair of NIfTI the header."""
    return [path for path in files if not path.name.startswith(".") and os.path.isfile(path)]
