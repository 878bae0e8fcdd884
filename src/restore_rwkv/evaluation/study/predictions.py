"""Images of an evaluation that are kept: one folder a method, which can be scored again."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from restore_rwkv.errors import InputError
from restore_rwkv.evaluation.study.sources import TRUTH, Case, Images
from restore_rwkv.io import Volume, atomic_folder, claimed, write_volume
from restore_rwkv.io.dicom import DicomSource


class Predictions:
    """Writes images to FOLDER/METHOD/SCAN, in the unit of the task."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, case: Case, images: Images) -> None:
        """Write the images that were computed; those that were read lie on disk already.

        Stacks of prepared sets are float32 arrays (N, H, W) in .npy; scans are .nii.gz, or .npy
        where they have no geometry that NIfTI holds.
        """
        every = {TRUTH: images.truth, **images.by_method}
        for method in sorted(images.made):
            volume = every[method]
            base = self._folder.joinpath(*method.split("/"), *case.key.split("/"))
            base.parent.mkdir(parents=True, exist_ok=True)
            if case.stack:
                np.save(f"{base}.npy", np.ascontiguousarray(volume.slices(images.axis)))
            else:
                suffix = ".nii.gz" if _fits_nifti(volume) else ".npy"
                write_volume(volume, f"{base}{suffix}", dtype="float32")


@contextmanager
def kept_in(folder: Path | None, inputs: Sequence[Path]) -> Iterator[Predictions | None]:
    """Give a writer of predictions, whose folder appears when the block ends without an error.

    Args:
        folder: folder to be made; None to write nothing.
        inputs: files and folders that are read.

    Raises:
        InputError: the folder exists already, or lies in an input.
        BusyError: another process writes it.
    """
    if folder is None:
        yield None
        return
    made = atomic_folder(folder)
    for source in inputs:
        if Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(source)):
            raise InputError(f"{folder}: lies in {source}, which is read; give another keep=FOLDER")
    with claimed(folder), made as temporary:
        yield Predictions(temporary)


def _fits_nifti(volume: Volume) -> bool:
    """Whether NIfTI holds the place of a volume; readers get that of tilted slices wrong."""
    tilt = volume.source.tilt if isinstance(volume.source, DicomSource) else 0.0
    return volume.affine is not None and not tilt
