"""Units of a PET series, and the SUV (by body weight) computed from its DICOM fields.

The rules are those of QIBA's vendor-neutral pseudo-code: activity that was decay-corrected to the
start of the scan (DecayCorrection START) is divided by the dose remaining at that time, activity
corrected to the injection (ADMIN) by the injected dose. Missing or implausible fields give a reason
instead of an SUV, since a wrong SUV would not be noticed.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_OF_SERIES = ("CorrectedImage", "DecayCorrection", "PatientWeight", "Units", "SUVType")
_OF_TIME = ("SeriesDate", "SeriesTime", "TimezoneOffsetFromUTC")
_OF_FRAME = ("AcquisitionDate", "AcquisitionTime", "ActualFrameDuration", "FrameReferenceTime")
_OF_DRUG = (
    "RadionuclideHalfLife",
    "RadionuclideTotalDose",
    "RadiopharmaceuticalStartDateTime",
    "RadiopharmaceuticalStartTime",
)
_DRUGS = "RadiopharmaceuticalInformationSequence"
SUV_FIELDS = (*_OF_SERIES, *_OF_TIME, *_OF_FRAME, _DRUGS)
"""Keywords of the DICOM elements that `pet_unit` reads."""

# Plausible values for mice to humans; values outside have wrong units (g, MBq, minutes).
_WEIGHTS = (0.005, 500.0)  # kg
_DOSES = (1e5, 1e11)  # Bq
_DOSES_PER_WEIGHT = (1e4, 1e10)  # Bq/kg
_HALF_LIVES = (30.0, 1e6)  # s
_MOST_HALF_LIVES = 6.0  # from injection to scan; after that 98 % have decayed
_DAY_MATTERS = 8 * 3600.0  # s: for longer half-lives a time without a date is ambiguous
_LONGEST_SERIES = 4 * 3600.0  # s from the start of a series to its first slice
_MIDNIGHT = datetime.time()

_Moment = datetime.datetime


@dataclass(frozen=True)
class PetUnit:
    """Unit of a PET series.

    Attributes:
        unit: "Bq/ml", "SUV" or "a.u.".
        suv_per_unit: SUV of 1 Bq/ml, if the unit is Bq/ml and the fields give it; else None.
        no_suv: reason in a few words, if the values are not in SUV and `suv_per_unit` is None.
    """

    unit: str
    suv_per_unit: float | None = None
    no_suv: str | None = None


class _NoSuvError(Exception):
    """The fields give no SUV; the message is the reason in a few words."""


def pet_unit(headers: Sequence[Dataset]) -> PetUnit:
    """Find the unit of a series and its SUV per Bq/ml.

    Args:
        headers: headers of all slices, with the elements `SUV_FIELDS`.
    """
    unit = "a.u."
    try:
        _require_same(headers, _OF_SERIES)
        units = headers[0].get("Units") or None
        if units == "GML":
            kind = headers[0].get("SUVType") or "BW"
            return PetUnit("SUV") if kind == "BW" else PetUnit(unit, None, f"SUVType is {kind}")
        if units != "BQML":
            return PetUnit(unit, None, f"Units is {units}" if units else "Units missing")
        unit = "Bq/ml"
        return PetUnit(unit, _suv_of_one(headers))
    except _NoSuvError as fault:
        return PetUnit(unit, None, str(fault))
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
        fault_text = " ".join(str(error).split())
        return PetUnit(unit, None, f"the PET fields are damaged, {fault_text}")


def _suv_of_one(headers: Sequence[Dataset]) -> float:
    """SUV of 1 Bq/ml: body weight in g over the dose in Bq remaining at the reference time."""
    header = headers[0]
    drug = _drug(headers)
    _require(header, ("CorrectedImage", "DecayCorrection", "PatientWeight"))
    _require(drug, ("RadionuclideTotalDose",))
    corrected = header.CorrectedImage
    corrected = {corrected} if isinstance(corrected, str) else set(corrected)
    if lacking := {"ATTN", "DECY"} - corrected:
        raise _NoSuvError(f"CorrectedImage lacks {', '.join(sorted(lacking))}")
    weight = _number(header, "PatientWeight", _WEIGHTS, "kg")
    dose = _number(drug, "RadionuclideTotalDose", _DOSES, "Bq")
    if not _DOSES_PER_WEIGHT[0] <= dose / weight <= _DOSES_PER_WEIGHT[1]:
        raise _NoSuvError(f"RadionuclideTotalDose is {dose:g} Bq for {weight:g} kg")
    if header.DecayCorrection == "START":
        half_life = _number(drug, "RadionuclideHalfLife", _HALF_LIVES, "s")
        scan = _scan_start(headers, half_life)
        dose *= 0.5 ** (_decay_time(header, drug, scan, half_life) / half_life)
    elif header.DecayCorrection != "ADMIN":
        raise _NoSuvError(f"DecayCorrection is {header.DecayCorrection}")
    return 1000 * weight / dose


def _drug(headers: Sequence[Dataset]) -> Dataset:
    """The single item of the radiopharmaceutical sequence, equal in all slices."""
    drugs = []
    for header in headers:
        items = list(header.get(_DRUGS) or ())
        if len(items) != 1:
            found = f"has {len(items)} items" if items else "missing"
            raise _NoSuvError(f"{_DRUGS} {found}")
        drugs.append(items[0])
    _require_same(drugs, _OF_DRUG)
    drug: Dataset = drugs[0]
    return drug


def _scan_start(headers: Sequence[Dataset], half_life: float) -> _Moment:
    """Time that START corrects to: that of the series, unless it was written afterwards."""
    _require_same(headers, _OF_TIME)
    frames = [_moment(header, "AcquisitionDate", "AcquisitionTime") for header in headers]
    if None in frames:
        raise _NoSuvError("AcquisitionDate or AcquisitionTime missing or unreadable")
    first, index = min((moment, i) for i, moment in enumerate(frames) if moment)
    header = headers[index]
    series = _moment(headers[0], "SeriesDate", "SeriesTime")
    if series is not None and series <= first:
        if (hours := (first - series).total_seconds()) > _LONGEST_SERIES:
            raise _NoSuvError(f"SeriesTime is {hours / 3600:.1f} h before AcquisitionTime")
        return series
    if first.time() == _MIDNIGHT:
        raise _NoSuvError("AcquisitionTime is blank, 00:00:00")
    reference = float(header.get("FrameReferenceTime") or 0) / 1000
    duration = float(header.get("ActualFrameDuration") or 0) / 1000
    if reference > 0 and duration > 0:
        decay = math.log(2) / half_life
        mean = math.log(decay * duration / -math.expm1(-decay * duration)) / decay
        return first + datetime.timedelta(seconds=mean - reference)
    return first


def _decay_time(header: Dataset, drug: Dataset, scan: _Moment, half_life: float) -> float:
    """Seconds from the injection to the start of the scan."""
    start = _date_time(drug.get("RadiopharmaceuticalStartDateTime"), header)
    if start is None:
        clock = _time(drug.get("RadiopharmaceuticalStartTime"))
        if clock is None:
            raise _NoSuvError("RadiopharmaceuticalStartTime missing or unreadable")
        if half_life > _DAY_MATTERS:
            raise _NoSuvError(
                "RadiopharmaceuticalStartDateTime missing, and the half-life is of hours"
            )
        start = datetime.datetime.combine(scan.date(), _MIDNIGHT) + clock
        if start > scan:  # injected before midnight
            start -= datetime.timedelta(days=1)
    if _MIDNIGHT in (start.time(), scan.time()):  # anonymisers replace times by this
        raise _NoSuvError("the time of injection or scan is blank, 00:00:00")
    seconds = (scan - start).total_seconds()
    if not 0 <= seconds <= _MOST_HALF_LIVES * half_life:
        raise _NoSuvError(
            f"{seconds / 3600:.2f} h from injection to scan at a half-life of "
            f"{half_life / 3600:.2f} h"
        )
    return seconds


def _require(item: Dataset, keywords: Sequence[str]) -> None:
    missing = [keyword for keyword in keywords if item.get(keyword) in (None, "")]
    if missing:
        raise _NoSuvError(f"{', '.join(missing)} missing")


def _require_same(items: Sequence[Dataset], keywords: Sequence[str]) -> None:
    for keyword in keywords:
        if len({str(item.get(keyword)) for item in items}) > 1:
            raise _NoSuvError(f"{keyword} differs between slices")


def _number(item: Dataset, keyword: str, limits: tuple[float, float], unit: str) -> float:
    """A field's number within limits."""
    _require(item, (keyword,))
    value = float(item.get(keyword))
    if not limits[0] <= value <= limits[1]:  # NaN fails this too
        raise _NoSuvError(f"{keyword} is {value:g} {unit}")
    return value


def _moment(header: Dataset, date: str, time: str) -> _Moment | None:
    day, clock = str(header.get(date) or "").replace(".", ""), _time(header.get(time))
    if clock is None or not re.fullmatch(r"\d{8}", day):
        return None
    return datetime.datetime.strptime(day, "%Y%m%d") + clock


def _time(value: Any) -> datetime.timedelta | None:
    """Time since midnight of HHMM[SS[.F]], also with colons, as old files have them."""
    match = re.fullmatch(r"(\d\d):?(\d\d):?(\d\d(?:\.\d{1,6})?)?", str(value or "").strip())
    if match is None:
        return None
    hours, minutes, seconds = int(match[1]), int(match[2]), float(match[3] or 0)
    if hours > 23 or minutes > 59 or seconds >= 61:  # 60 is a leap second
        return None
    return datetime.timedelta(hours=hours, minutes=minutes, seconds=seconds)


def _date_time(value: Any, header: Dataset) -> _Moment | None:
    """Local moment of YYYYMMDDHHMM[SS[.F]][+-ZZZZ]."""
    match = re.fullmatch(r"(\d{8})(\d{4,6}(?:\.\d{1,6})?)([+-]\d{4})?", str(value or "").strip())
    clock = _time(match[2]) if match else None
    if match is None or clock is None:
        return None
    moment = datetime.datetime.strptime(match[1], "%Y%m%d") + clock
    here = str(header.get("TimezoneOffsetFromUTC") or "")
    if match[3] and re.fullmatch(r"[+-]\d{4}", here):
        moment += _offset(here) - _offset(match[3])
    return moment


def _offset(text: str) -> datetime.timedelta:
    offset = datetime.timedelta(hours=int(text[1:3]), minutes=int(text[3:5]))
    return -offset if text[0] == "-" else offset
