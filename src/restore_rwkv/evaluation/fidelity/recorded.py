"""What the record beside a restored image says of how it was made."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from restore_rwkv.errors import InputError
from restore_rwkv.io import DicomSource, Volume, identify, record_of, record_of_series
from restore_rwkv.io.record import FORMAT
from restore_rwkv.model import find_weights, read_info, shipped_weights
from restore_rwkv.tasks import TASKS, AxisFactor, Task

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A restoration by this program, as its record has it.

    Attributes:
        path: of the record.
        task: what the scan was restored for.
        axis: array axis across the slices.
        scale: factor of the finer grid; None where the grid was kept.
        factor: reduction of the measurement; None where it was not known.
        tile: (rows, columns) of the tiles; those of a slice where it was not cut.
        weights: file name of the weights.
        weights_sha256: digest of their tensors.
        source_sha256: digest of the scan.
        values: all of the record.
    """

    path: Path
    task: Task
    axis: int
    scale: float | None
    factor: AxisFactor | None
    tile: tuple[int, int]
    weights: str
    weights_sha256: str
    source_sha256: str | None
    values: Mapping[str, Any]


def find_record(image: Volume) -> Recorded | None:
    """Return what the record beside a restored image says; None where there is none for it.

    A record of another image, by the digest of its output, is left out with a warning.

    Raises:
        InputError: the record is damaged.
        OSError: a file cannot be read any more.
    """
    path = _path_of(image)
    if path is None or not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        known = values["format"] == FORMAT and values["task"] in TASKS
        recorded = _recorded(path, values) if known else None
        digest = values["output_sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: is not a record that can be read ({type(error).__name__}: {error}); restore "
            "the image again, or remove the file"
        ) from error
    if recorded is None or not _same_series(image, values):
        return None
    identity = identify(image)
    if identity is None or identity.source_sha256 != digest:
        _logger.warning(
            "%s: has changed since its record %s was written, so the record is not used",
            *(image.name, path.name),
        )
        return None
    return recorded


def weights_of(recorded: Recorded) -> Path | None:
    """Return the weights that an image was restored with, where they are shipped, else None."""
    path = shipped_weights().get(Path(recorded.weights).stem)
    if path is not None and read_info(path).sha256 == recorded.weights_sha256:
        return path
    _logger.warning(
        "%s: the image was restored with %s, which is not among the shipped weights, so nothing is "
        "said about its fit; give weights=FILE",
        *(recorded.path.name, recorded.weights),
    )
    return None


def given_weights(given: str | Path, recorded: Recorded | None) -> Path:
    """Return the path of weights that a user gives.

    Raises:
        InputError: the record says that the image was restored with others.
        WeightsError: there are none of that name, or they are damaged.
    """
    path = find_weights(given)
    if recorded is not None and read_info(path).sha256 != recorded.weights_sha256:
        raise InputError(
            f"{recorded.path.name}: the image was restored with {recorded.weights} of SHA-256 "
            f"{recorded.weights_sha256[:12]}..., which {path.name} does not have; leave weights "
            "out, or give those"
        )
    return path


def warn_of_another_source(scan: Volume, recorded: Recorded) -> None:
    """Warn where a record names another scan than this one."""
    identity = identify(scan)
    if identity is not None and identity.source_sha256 != recorded.source_sha256:
        _logger.warning(
            "%s: is not the file that was restored (%s, says %s); give that one, unless both hold "
            "the same scan",
            *(scan.name, recorded.values.get("source"), recorded.path.name),
        )


def _path_of(image: Volume) -> Path | None:
    source = image.source
    if source is None:
        return None
    if isinstance(source, DicomSource):
        folder = source.path if source.path.is_dir() else source.path.parent
        return record_of_series(folder)
    return record_of(source.path)


def _same_series(image: Volume, values: Mapping[str, Any]) -> bool:
    """Whether a record is of the series of an image; for other formats its name says so."""
    source = image.source
    if not isinstance(source, DicomSource):
        return True
    return values.get("output_series_instance_uid") == source.series_instance_uid


def _recorded(path: Path, values: Mapping[str, Any]) -> Recorded:
    """Return the fields of a record.

    Raises:
        KeyError: one is missing.
        TypeError: one is of another type.
        ValueError: likewise, or its value is not possible.
    """
    scale, factor = values["scale"], values["factor"]
    rows, columns = map(int, values["tile"])
    axis = int(values["slice_axis"])
    if axis not in (0, 1, 2):
        raise ValueError(f"slice_axis is {axis}")
    if isinstance(factor, list):
        first, second = map(float, factor)
        factor = (first, second)
    elif factor is not None:
        factor = float(factor)
    assumed = values.get("no_noise") is not None
    return Recorded(
        path=path,
        task=TASKS[values["task"]],
        axis=axis,
        scale=None if scale is None else float(scale),
        factor=None if assumed else factor,
        tile=(rows, columns),
        weights=str(values["weights"]),
        weights_sha256=str(values["weights_sha256"]),
        source_sha256=values["source_sha256"],
        values=values,
    )
