"""The files of an evaluation: CSV, Parquet and the report, which appear together or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from restore_rwkv.errors import InputError
from restore_rwkv.evaluation.study.results import Study
from restore_rwkv.evaluation.study.tables import require_parquet, write_csv, write_parquet
from restore_rwkv.io import atomic_files, claimed
from restore_rwkv.io.outputs import check_writable

PANELS = 12
"""Largest number of slices of each task in a report."""


@dataclass(frozen=True, kw_only=True)
class StudyFiles:
    """Files to be written of an evaluation.

    Attributes:
        csv: table of all values.
        parquet: the same as Parquet.
        report: page in HTML.
        overwrite: whether existing files are replaced.
    """

    csv: Path | None = None
    parquet: Path | None = None
    report: Path | None = None
    overwrite: bool = False

    @property
    def paths(self) -> dict[str, Path]:
        """Paths of the files by what they are."""
        every = {"csv": self.csv, "parquet": self.parquet, "report": self.report}
        return {kind: path for kind, path in every.items() if path is not None}

    def check(self, inputs: Sequence[Path] = ()) -> None:
        """Refuse what cannot be written, before anything is computed.

        Args:
            inputs: files and folders that are read, which no output may replace.

        Raises:
            InputError: a file exists, or is or lies in an input, or cannot be written, or two
                outputs are the same.
            ConfigError: PyArrow is missing, which Parquet needs.
        """
        if self.parquet is not None:
            require_parquet()
        seen: dict[str, str] = {}
        for kind, path in self.paths.items():
            real = os.path.realpath(path)
            if real in seen:
                raise InputError(f"{path}: is both {seen[real]} and {kind}; name two files")
            seen[real] = kind
            for source in inputs:
                if source.is_file() and path.exists() and os.path.samefile(path, source):
                    raise InputError(f"{path}: is an input; name another output")
            check_writable(path, overwrite=self.overwrite, make_folders=True)

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Claim the files for this process.

        Raises:
            BusyError: another process is writing one of them.
        """
        paths = list(self.paths.values())
        with claimed(*paths) if paths else nullcontext():
            yield

    def write(self, study: Study) -> None:
        """Write the files, all or none of them.

        Raises:
            InputError: a file has appeared in the meantime.
            OSError: the disk is full.
        """
        if not self.paths:
            return
        with atomic_files(*self.paths.values(), overwrite=self.overwrite) as temporaries:
            for kind, path in zip(self.paths, temporaries, strict=True):
                if kind == "csv":
                    write_csv(study, path)
                elif kind == "parquet":
                    write_parquet(study, path)
                else:
                    from restore_rwkv.evaluation.report.page import write_report

                    write_report(study, path)
