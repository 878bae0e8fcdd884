"""The demo: degrade, restore, score and draw a real high-quality scan."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from restore_rwkv.errors import InputError
from restore_rwkv.evaluation import figures
from restore_rwkv.evaluation.scores import Evaluation, evaluate
from restore_rwkv.io import Progress, Volume, begin_stage, read_volume, write_volume
from restore_rwkv.model.shipped import sample_scan
from restore_rwkv.restoration.restorer import Restorer


@dataclass(frozen=True, eq=False)
class Demo:
    """Result of the demo.

    Attributes:
        evaluation: images and scores.
        files: path of each file written, by a description of its content.
    """

    evaluation: Evaluation
    files: dict[str, Path]


def run_demo(
    output: Path,
    device: str = "auto",
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Demo:
    """Restore the sample scan with the shipped weights, and write images and a picture.

    Args:
        output: folder, created if missing.
        device: where the network runs.
        overwrite: replace files of an earlier demo.
        progress: told the stages, and called with (slices restored, all).

    Raises:
        InputError: one of the files exists already, or `output` is a file.
    """
    files = {
        "low-resolution input": output / "input.nii.gz",
        "restored scan": output / "restored.nii.gz",
        "picture": output / "comparison.png",
    }
    _require_new(output, files.values(), overwrite=overwrite)
    begin_stage(progress, "reading the sample scan")
    truth = read_volume(sample_scan())
    restorer = Restorer("mri-sr", device=device)
    output.mkdir(parents=True, exist_ok=True)
    result = evaluate(truth, restorer, progress=progress)
    begin_stage(progress, "writing and drawing")
    write_volume(result.volumes["input"], files["low-resolution input"], overwrite=overwrite)
    write_volume(result.volumes["restored"], files["restored scan"], overwrite=overwrite)
    middle = truth.data.shape[result.slice_axis] // 2
    figures.comparison(
        {
            f"{name}\n{result.scores[name].psnr:.2f} dB": _drawn(volume, result, middle)
            for name, volume in result.volumes.items()
        },
        _drawn(truth, result, middle),
        files["picture"],
    )
    return Demo(result, files)


def _require_new(output: Path, files: Iterable[Path], *, overwrite: bool) -> None:
    """Refuse a folder that is a file, and files that exist already."""
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file; name a folder")
    for path in files:
        if path.exists() and not overwrite:
            raise InputError(f"{path}: exists already; give another output=DIR or overwrite=True")


def _drawn(volume: Volume, result: Evaluation, index: int) -> NDArray[np.float32]:
    """A slice as an image matrix, with the first voxel axis to the right and the second up."""
    image: NDArray[np.float32] = volume.slices(result.slice_axis)[index].T[::-1]
    return image
