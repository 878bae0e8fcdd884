"""The files of a report: its page, a file for each map, and numbers that no record has."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from restore_rwkv.errors import InputError
from restore_rwkv.evaluation.fidelity.results import Fidelity, FidelityMap
from restore_rwkv.io import (
    Derivation,
    DicomSource,
    NiftiSource,
    Volume,
    check_output,
    check_record,
    encode_volumes,
)
from restore_rwkv.io.dicom.derived import NUMBER_OFFSET
from restore_rwkv.io.dicom.maps import Code, Quantity, check_parametric_map, write_parametric_map
from restore_rwkv.io.nifti import NO_EXTENSIONS
from restore_rwkv.io.outputs import check_writable
from restore_rwkv.tasks import Task

MapSuffix = Literal[".nii.gz", ".npy", ".dcm"]

_logger = logging.getLogger(__name__)

FORMAT = "restore-rwkv fidelity 1"
PAGE_SUFFIX = ".fidelity.html"
NUMBERS_SUFFIX = ".fidelity.json"

MAPS = {
    "MR": ("contradicted", "inferred"),
    "CT": ("removed",),
    "PT": ("removed", "region_shift"),
}
"""Names of the maps that a report may have, by modality."""
INTERVAL = "interval"
"""Name of the map that a spread adds."""

_SCHEME = "99RESTORERWKV"  # of codes that no standard has
_LONGEST_CODE, _LONGEST_MEANING = 16, 64  # characters
_UNITS: dict[str, Code] = {
    "": ("1", "UCUM", "no units"),
    "HU": ("[hnsf'U]", "UCUM", "Hounsfield unit"),
    "SUV": ("g/ml{SUVbw}", "UCUM", "Standardized Uptake Value body weight"),
    "Bq/ml": ("Bq/ml", "UCUM", "Becquerels/milliliter"),
    "a.u.": ("[arb'U]", "UCUM", "arbitrary unit"),
    "%": ("%", "UCUM", "Percent"),
}


@dataclass(frozen=True, kw_only=True)
class ReportFiles:
    """Files to be written of a report.

    Attributes:
        page: the report as one page of HTML.
        stem: path of the maps without their names and suffix, such as out/scan.
        suffix: of the maps: ".nii.gz", ".npy", or ".dcm" for DICOM parametric maps.
        names: of the maps.
        numbers: all numbers as JSON; None where the record of the image has them.
        overwrite: whether existing files are replaced.
    """

    page: Path
    stem: Path
    suffix: MapSuffix
    names: tuple[str, ...]
    numbers: Path | None = None
    overwrite: bool = False

    @property
    def maps(self) -> dict[str, Path]:
        """Path of each map by its name."""
        return {name: beside(self.stem, f".{name}{self.suffix}") for name in self.names}

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of them, the page first."""
        numbers = () if self.numbers is None else (self.numbers,)
        return (self.page, *self.maps.values(), *numbers)

    def check(self, image: Volume, inputs: Sequence[Path] = ()) -> None:
        """Refuse what cannot be written, before anything is computed.

        Args:
            image: on the grid of the maps.
            inputs: files and folders that are read, which no file may replace.

        Raises:
            InputError: a file exists, or is an input, or cannot be written, or the format of the
                maps cannot hold them.
        """
        for path in self.paths:
            for source in inputs:
                if path.exists() and source.exists() and os.path.samefile(path, source):
                    raise InputError(f"{path}: is an input; name another output")
            check_writable(path, overwrite=self.overwrite, make_folders=True)
        for path in self.maps.values():
            if self.suffix != ".dcm":
                check_output(image, path, overwrite=self.overwrite)
        if self.numbers is not None and image.source is not None:
            check_record(self.numbers, image.source.path, overwrite=self.overwrite)

    def of(self, fidelity: Fidelity) -> ReportFiles:
        """Return these files with the maps that a report has, in their order."""
        return dataclasses.replace(self, names=tuple(each.name for each in fidelity.maps))

    def write(self, fidelity: Fidelity, paths: Sequence[Path], derivation: Derivation) -> None:
        """Write all of `paths`.

        Args:
            fidelity: what the report says.
            paths: existing, empty files, in the order of `ReportFiles.paths`.
            derivation: how the image was made, for headers of DICOM.

        Raises:
            InputError: no parametric map can be made of the headers of the image.
            OSError: the disk is full.
        """
        from restore_rwkv.evaluation.fidelity.page import write_fidelity_page

        page, *others = paths
        write_fidelity_page(fidelity, page)
        maps = {each.name: each for each in fidelity.maps}
        for number, (name, path) in enumerate(zip(self.names, others, strict=False)):
            if self.suffix == ".dcm":
                path.unlink()  # its writer makes it
                _write_dicom(maps[name], fidelity.pair.after, path, derivation, number)
            else:
                _write_array(maps[name], fidelity.pair.after, path)
        if self.numbers is not None:
            text = json.dumps(fidelity_values(fidelity, self), indent=2) + "\n"
            others[-1].write_text(text, encoding="utf-8")


def map_names(task: Task, *, intervals: bool = False) -> tuple[str, ...]:
    """Return the names of the maps that the report of an image may have."""
    return (*MAPS[task.modality], *((INTERVAL,) if intervals else ()))


def beside(stem: Path, suffix: str) -> Path:
    """Return a path with a suffix more; a dot in the name begins none."""
    return stem.with_name(stem.name + suffix)


def map_suffix(image: Volume, *, dicom: bool) -> MapSuffix:
    """Return the format of the maps of an image.

    Args:
        image: on the grid of the maps.
        dicom: whether it is a DICOM series on disk, whose maps are parametric maps where its
            headers allow them.
    """
    if dicom:
        try:
            check_parametric_map(image)
        except InputError as error:
            _logger.warning("%s; so the maps of the report are NIfTI", error)
        else:
            return ".dcm"
    return ".npy" if image.affine is None else ".nii.gz"


def fidelity_values(fidelity: Fidelity, files: ReportFiles | None = None) -> dict[str, Any]:
    """Return all numbers and texts of a report as plain JSON values.

    Args:
        fidelity: what the report says.
        files: its files, whose names are given; None where nothing was written.
    """
    pair = fidelity.pair
    maps = {} if files is None else files.maps
    source = pair.after.source
    return {
        "format": FORMAT,
        "output": None if source is None else source.path.name,
        **fidelity.to_dict(),
        "task": pair.task.name,
        "slice_axis": pair.axis,
        "factor": pair.factor,
        "signed": pair.signed,
        "tile": pair.tile,
        "fit": None if pair.fit is None else pair.fit.outcome,
        "seed": pair.seed,
        "provenance": dict(pair.provenance),
        "figures": {each.name: dataclasses.asdict(each) for each in fidelity.figures},
        "maps": {
            each.name: {
                "title": each.title,
                "unit": each.unit,
                "threshold": each.threshold,
                "meaning": each.meaning,
                "blind_to": each.blind_to,
                "file": maps[each.name].name if each.name in maps else None,
            }
            for each in fidelity.maps
        },
        "places": [dataclasses.asdict(place) for place in fidelity.places],
    }


def _write_array(each: FidelityMap, image: Volume, path: Path) -> None:
    """Write a map as NIfTI or NPY, on the grid of the image and without what its header says."""
    volume, source = image.with_data(each.volume.data), image.source
    if isinstance(source, NiftiSource):
        header = source.header.copy()
        header["descrip"] = each.title.encode("ascii", "replace")[:79]
        for field in ("intent_code", "intent_p1", "intent_p2", "intent_p3"):
            header[field] = 0
        header["intent_name"] = header["aux_file"] = b""
        clean = dataclasses.replace(source, header=header, extensions=NO_EXTENSIONS)
        volume = dataclasses.replace(volume, source=clean)
    encode_volumes([volume], 1, path, dtype="float32", keep_nan=False)


def _write_dicom(
    each: FidelityMap, image: Volume, path: Path, derivation: Derivation, number: int
) -> None:
    """Write a map as a parametric map in a series of its own, numbered after the image's."""
    source = image.source
    given = source.series_number if isinstance(source, DicomSource) else None
    base = int(given) if given is not None and given.isdecimal() else 0
    quantity = Quantity(
        label=each.name,
        explanation=each.title,
        unit=_UNITS.get(each.unit, (each.unit[:_LONGEST_CODE], "UCUM", each.unit)),
        concept=(each.name.upper()[:_LONGEST_CODE], _SCHEME, each.title[:_LONGEST_MEANING]),
    )
    made = dataclasses.replace(
        derivation,
        description=f"{each.title}; {each.meaning}",
        series_number=base % (1 << 30) + NUMBER_OFFSET + number,
    )
    write_parametric_map(image.with_data(each.volume.data), path, quantity, made)
