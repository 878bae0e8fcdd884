"""Results on disk: an image and its record, which appear together or not at all."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from restore_rwkv.errors import InputError
from restore_rwkv.io.atomic import atomic_files, atomic_series
from restore_rwkv.io.dicom.derived import Derivation
from restore_rwkv.io.dicom.write import check_dicom_output, write_dicom
from restore_rwkv.io.files import encode_volumes
from restore_rwkv.io.kinds import check_source, kind_of, suffix_of
from restore_rwkv.io.outputs import OutputType, check_output, check_output_path, check_writable
from restore_rwkv.io.record import (
    RECORD_SUFFIX,
    OutputRecord,
    Record,
    check_record,
    identify_output,
    record_of,
    record_of_series,
    record_text,
)
from restore_rwkv.io.volume import Volume

OutputFormat = Literal["auto", "dicom"]
R = TypeVar("R", bound=Record)
Finish = Callable[[OutputRecord, tuple[Path, ...]], R]
"""Makes the record, of the identity of the output and the paths to write further files to."""


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """How a result is written.

    Attributes:
        dtype: as for `write_volume`.
        format: "dicom" for a folder with a derived DICOM series; "auto" for that where the output
            ends in a slash, or has no suffix and the input is DICOM, and else for the format of its
            suffix.
        overwrite: replace an existing file and its record; folders are never replaced.
        keep_nan: write NaN where the input had it, not what filled it.
    """

    dtype: OutputType = "auto"
    format: OutputFormat = "auto"
    overwrite: bool = False
    keep_nan: bool = False


@dataclass(frozen=True)
class Target:
    """Where a restored image goes.

    Attributes:
        path: file, or folder of a derived DICOM series.
        is_series: which of the two.
        options: how it is written.
    """

    path: Path
    is_series: bool
    options: OutputOptions

    @classmethod
    def of(cls, path: Path | str, source: Path, options: OutputOptions) -> Target:
        """Return where an output goes that is named `path`.

        Raises:
            InputError: the input does not exist or is of an unknown kind.
        """
        folder = options.format == "dicom" or str(path).endswith(("/", os.sep))
        path = Path(path)
        if not folder and not suffix_of(path.name):
            check_source(source)
            folder = kind_of(source) == "dicom"
        return cls(path, folder, options)

    @property
    def record(self) -> Path:
        """Path of the record, beside the output."""
        return record_of_series(self.path) if self.is_series else record_of(self.path)

    def beside(self, suffix: str) -> Path:
        """Path of a further file beside the output: scan.removed.nii.gz for ".removed.nii.gz"."""
        return self.record.with_name(self.record.name.removesuffix(RECORD_SUFFIX) + suffix)

    def check_path(self, source: Path) -> None:
        """Check before anything is read that the output may be written.

        Raises:
            InputError: as `check_output_path`, or the folder of a series exists.
        """
        overwrite = self.options.overwrite
        if not self.is_series:
            check_output_path(self.path, source=source, overwrite=overwrite)
            self.check_record()
            return
        inside = self.path.absolute().is_relative_to(source.absolute())
        if source.is_dir() and inside:
            raise InputError(
                f"{self.path}: lies in the input, which would then hold two series; name a folder "
                "outside it"
            )
        if self.path.exists():
            raise InputError(
                f"{self.path}: exists already, and a folder is never replaced; name a new one for "
                "the DICOM series, or a file such as restored.nii.gz"
            )
        check_writable(self.path, make_folders=True)
        self.check_record()

    def check_record(self) -> None:
        """Check that the record may be written; raises InputError if it exists."""
        check_record(self.record, self.path, overwrite=self.options.overwrite)

    def check_image(self, volume: Volume, volumes: int = 1) -> None:
        """Check before any computation that the output can hold an image.

        Args:
            volume: the image that was read, or one on the grid of the result.
            volumes: how many there will be.

        Raises:
            InputError: as `check_output` or `check_dicom_output`.
        """
        if self.is_series:
            check_dicom_output(volume)
            return
        options = self.options
        check_output(
            *(volume, self.path),
            dtype=options.dtype,
            overwrite=options.overwrite,
            volumes=volumes,
            keep_nan=options.keep_nan,
        )

    def write_volumes(
        self,
        volumes: Iterable[Volume],
        count: int,
        finish: Finish[R],
        others: Sequence[Path] = (),
    ) -> R:
        """Write volumes of one grid to a file, each as it comes, and then their record.

        Args:
            volumes: in the order of the fourth axis.
            count: their number.
            finish: writes the further files, and makes the record.
            others: further files, which appear with the output.

        Returns:
            The record.

        Raises:
            InputError: as `write_volumes`, or an output has appeared in the meantime.
            OSError: the disk is full, or the folder cannot be written to.
        """
        options = self.options
        paths = (self.path, self.record, *others)
        with atomic_files(*paths, overwrite=options.overwrite) as (image, text, *further):
            clipped = encode_volumes(
                *(volumes, count, image), dtype=options.dtype, keep_nan=options.keep_nan
            )
            output = identify_output(image, self.path.name)
            record = finish(
                dataclasses.replace(
                    output,
                    clipped_voxels=clipped,
                    dtype=options.dtype,
                    keep_nan=options.keep_nan,
                ),
                tuple(further),
            )
            text.write_text(record_text(record), encoding="utf-8")
        return record

    def write_series(
        self,
        volume: Volume,
        derivation: Derivation,
        finish: Finish[R],
        others: Sequence[Path] = (),
    ) -> R:
        """Write a volume as a derived DICOM series with its record; errors as `write_dicom`."""
        with atomic_series(self.path, self.record, *others) as (folder, text, *further):
            written = write_dicom(volume, folder, derivation)
            output = identify_output(folder, self.path.name)
            record = finish(
                dataclasses.replace(
                    output,
                    output_series_instance_uid=written.series_instance_uid,
                    clipped_voxels=written.clipped,
                    dtype=self.options.dtype,
                    keep_nan=self.options.keep_nan,
                ),
                tuple(further),
            )
            text.write_text(record_text(record), encoding="utf-8")
        return record
