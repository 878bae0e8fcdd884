"""A study as CSV, Parquet and plain values for JSON."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from restore_rwkv.errors import ConfigError
from restore_rwkv.evaluation.measures.measure import Measure
from restore_rwkv.evaluation.study.results import Study
from restore_rwkv.evaluation.study.statistics import patient_means

FORMAT = "restore-rwkv study 1"
"""Changes when a value changes its meaning; values may be added without."""


class Row(NamedTuple):
    """One value of one measure: a row of CSV and Parquet, whose columns have these names.

    Attributes:
        task, patient, scan: names.
        slice: index of the slice in the scan, from 0; None for measures of the whole scan.
        method: "input", or the name of weights or of a folder.
        measure: name of the measure.
        value: value, in `unit`; None where there is none.
        unit: "dB", "HU", "1" for a pure number, ...
        reason: why there is no value; empty otherwise.
    """

    task: str
    patient: str
    scan: str
    slice: int | None
    method: str
    measure: str
    value: float | None
    unit: str
    reason: str


def rows_of(study: Study) -> Iterator[Row]:
    """Return one row for each value, in the order of the scores and of the measures."""
    units = {measure.name: measure for measure in study.measures}
    for score in study.scores:
        for name, value in score.values.items():
            yield Row(
                score.task,
                score.patient,
                score.scan,
                score.slice,
                score.method,
                name,
                value,
                unit_of(units[name], score.task),
                score.reasons.get(name, ""),
            )


def unit_of(measure: Measure, task: str) -> str:
    """Return the unit of a measure on images of a task; "1" for a pure number."""
    from restore_rwkv.tasks import get_task

    return get_task(task).unit if measure.unit == "image" else measure.unit


def write_csv(study: Study, path: Path) -> None:
    """Write the rows as CSV in UTF-8 with a header; numbers keep all their digits.

    A missing value is an empty cell. The same study gives the same bytes.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(rows_of(study))


def require_parquet() -> None:
    """Raise ConfigError where PyArrow, which writes Parquet, is not installed."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "parquet: needs pyarrow; pip install 'restore-rwkv[evaluate]', or write CSV"
        ) from error


def write_parquet(study: Study, path: Path) -> None:
    """Write the rows as a Parquet file with the columns of `Row`.

    Raises:
        ConfigError: as `require_parquet`.
    """
    require_parquet()
    import pyarrow
    import pyarrow.parquet

    text = pyarrow.string()
    types = dict.fromkeys(Row._fields, text)
    types |= {"slice": pyarrow.int32(), "value": pyarrow.float64()}
    columns = zip(*rows_of(study), strict=True)
    arrays = [
        pyarrow.array(list(column), types[name])
        for name, column in zip(Row._fields, columns, strict=True)
    ]
    pyarrow.parquet.write_table(pyarrow.table(arrays, names=list(Row._fields)), path)


def study_values(study: Study) -> dict[str, Any]:
    """Return a study without its pictures as plain values for JSON, which has no NaN.

    Keys are "format", "methods", "measures", "sets", "summaries", "tests", "patients", "scores",
    "spectra" and "provenance"; docs/evaluating.md describes them.
    """
    return {
        "format": FORMAT,
        "methods": list(study.methods),
        "measures": [_measure_values(measure) for measure in study.measures],
        "sets": dict(study.sets),
        "summaries": [dataclasses.asdict(summary) for summary in study.summaries],
        "tests": [dataclasses.asdict(test) for test in study.tests],
        "patients": [dataclasses.asdict(mean) for mean in patient_means(study.scores)],
        "scores": [
            {
                "task": score.task,
                "patient": score.patient,
                "scan": score.scan,
                "slice": score.slice,
                "method": score.method,
                "values": dict(score.values),
                "reasons": dict(score.reasons),
            }
            for score in study.scores
        ],
        "spectra": [
            {
                "task": spectrum.task,
                "method": spectrum.method,
                "per_mm": spectrum.per_mm,
                "frequency": spectrum.frequency.tolist(),
                "power": spectrum.power.tolist(),
            }
            for spectrum in study.spectra
        ],
        "provenance": dict(study.provenance),
    }


def _measure_values(measure: Measure) -> dict[str, Any]:
    names = ("name", "title", "unit", "better", "of", "equation", "source", "blind_to")
    return {name: getattr(measure, name) for name in names} | {
        "bounds": [end if math.isfinite(end) else None for end in measure.bounds]
    }
