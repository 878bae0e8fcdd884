"""Means over patients with bootstrap intervals, and paired tests between methods."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from restore_rwkv.evaluation.measures.measure import Measure
from restore_rwkv.evaluation.study.results import PairedTest, Scored, Summary

RESAMPLES = 5000
"""Bootstrap samples of an interval."""

FEWEST_PATIENTS = 6
"""With fewer pairs, the two-sided Wilcoxon test cannot give a p-value below 0.05.

Slices do not replace patients: where methods do not differ on average, but do by chance on each
patient, tests over 5 to 30 slices of 1 to 5 patients gave p < 0.05 in 60 to 68 % of 200 studies.
"""

# Percent of 95 % intervals that hold the true mean by number of patients, which is the smaller of
# that for normal and for exponential values in 300 samples each, to 5 %.
_HELD = {2: 50, 3: 70, 4: 75, 5: 80, 6: 85, 7: 85, 8: 85, 9: 90}

_LEVEL = 0.95
_BATCH = 4_000_000  # numbers drawn at once

Place = tuple[str, str, int | None]
"""Patient, scan, and slice of a value; no slice for measures of scans."""

Values = Mapping[Place, float]


@dataclass(frozen=True, kw_only=True)
class PatientMean:
    """One measure of one method on all slices of one patient.

    Attributes:
        task, patient, method, measure: names.
        mean: mean over the slices (or scans) that have a value; None if there are none.
        slices: number of these.
        without: number of slices (or scans) without a value.
    """

    task: str
    patient: str
    method: str
    measure: str
    mean: float | None
    slices: int
    without: int


def patient_means(scores: Sequence[Scored]) -> list[PatientMean]:
    """Return the means over the slices of each patient, in the order in which they first occur."""
    found: dict[tuple[str, str, str, str], list[float | None]] = {}
    for score in scores:
        for measure, value in score.values.items():
            key = (score.task, score.patient, score.method, measure)
            found.setdefault(key, []).append(value)
    means = []
    for (task, patient, method, measure), every in found.items():
        values = [value for value in every if value is not None]
        means.append(
            PatientMean(
                task=task,
                patient=patient,
                method=method,
                measure=measure,
                mean=_mean(values) if values else None,
                slices=len(values),
                without=len(every) - len(values),
            )
        )
    return means


def caution(patients: int) -> str:
    """Return what few patients mean for intervals and tests, in a sentence; "" for 10 and more."""
    if patients == 1:
        return "One patient says nothing about others: intervals are over its slices."
    if patients not in _HELD:
        return ""
    start = "Patients are too few for a test, and i" if patients < FEWEST_PATIENTS else "I"
    return (
        f"{start}ntervals of {patients} patients are too narrow: about {_HELD[patients]} % of "
        "them hold the true mean, not 95 %."
    )


def summarise(
    scores: Sequence[Scored], measures: Sequence[Measure], seed: int = 0
) -> tuple[tuple[Summary, ...], tuple[PairedTest, ...]]:
    """Return means and intervals by task, method and measure, and the tests between methods.

    Args:
        scores: of every image.
        measures: in the order of the results.
        seed: of the bootstrap; each interval is drawn from the same seed, so that it does not
            depend on what else is measured.
    """
    summaries: list[Summary] = []
    tests: list[PairedTest] = []
    for task, by_measure in _by_task(scores).items():
        for measure in measures:
            by_method = by_measure.get(measure.name, {})
            kept = {method: _kept(found) for method, found in by_method.items()}
            for method, found in by_method.items():
                names = (task, method, measure.name)
                summaries.append(_summary(names, kept[method], len(found), seed))
            tests += _tests(task, measure.name, kept, seed)
    return tuple(sorted(summaries, key=_order(scores, measures))), tuple(tests)


def bootstrap_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float] | None:
    """Return the ends of the 95 % bootstrap interval of a mean; None for fewer than two values.

    The interval is bias-corrected and accelerated (BCa; Efron, J. Am. Stat. Assoc. 82, 1987), by
    `scipy.stats.bootstrap` with 5000 samples. Of fewer than about ten values it is too narrow.
    """
    if len(values) < 2:
        return None
    if min(values) == max(values):
        return values[0], values[0]
    from scipy import stats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=RuntimeWarning)  # of degenerate samples
        found = stats.bootstrap(
            (np.asarray(values, dtype=np.float64),),
            np.mean,
            n_resamples=RESAMPLES,
            batch=max(1, _BATCH // len(values)),
            confidence_level=_LEVEL,
            method="BCa",
            random_state=np.random.default_rng(seed),
        )
    low, high = map(float, found.confidence_interval)
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None


def signed_rank(differences: Sequence[float]) -> float | None:
    """Return the two-sided p-value of Wilcoxon's signed-rank test (`scipy.stats.wilcoxon`).

    It is exact for up to 50 differences without ties, and up to 13 with ties; otherwise it is from
    the normal approximation.

    Returns:
        None with fewer than 6 differences, or where all are 0.
    """
    if len(differences) < FEWEST_PATIENTS or not any(differences):
        return None
    from scipy import stats

    p = float(stats.wilcoxon(np.asarray(differences, dtype=np.float64)).pvalue)
    return p if math.isfinite(p) else None


def holm(ps: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm, Scand. J. Stat. 6, 1979).

    The k-th smallest of n is multiplied by n - k + 1; none becomes smaller than one before it, or
    larger than 1.
    """
    corrected, least = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda index: ps[index])):
        least = max(least, min(1.0, (len(ps) - rank) * ps[index]))
        corrected[index] = least
    return corrected


def _by_task(
    scores: Sequence[Scored],
) -> dict[str, dict[str, dict[str, dict[Place, float | None]]]]:
    """Return values by task, measure, method and place."""
    found: dict[str, dict[str, dict[str, dict[Place, float | None]]]] = {}
    for score in scores:
        of_task = found.setdefault(score.task, {})
        place = (score.patient, score.scan, score.slice)
        for measure, value in score.values.items():
            of_task.setdefault(measure, {}).setdefault(score.method, {})[place] = value
    return found


def _order(
    scores: Sequence[Scored], measures: Sequence[Measure]
) -> Callable[[Summary], tuple[int, int, int]]:
    """Return the key that sorts summaries by task, method and measure."""
    tasks = {name: n for n, name in enumerate(dict.fromkeys(s.task for s in scores))}
    methods = {name: n for n, name in enumerate(dict.fromkeys(s.method for s in scores))}
    places = {measure.name: n for n, measure in enumerate(measures)}
    return lambda s: (tasks[s.task], methods[s.method], places[s.measure])


def _kept(values: Mapping[Place, float | None]) -> dict[Place, float]:
    return {place: value for place, value in values.items() if value is not None}


def _summary(names: tuple[str, str, str], values: Values, count: int, seed: int) -> Summary:
    task, method, measure = names
    means = _by_patient(values)
    resampled, ends = _interval(means, values, seed)
    return Summary(
        task=task,
        method=method,
        measure=measure,
        mean=_mean(means) if means else None,
        low=ends[0] if ends else None,
        high=ends[1] if ends else None,
        resampled=resampled,
        slice_mean=_mean(list(values.values())) if values else None,
        patients=len(means),
        slices=len(values),
        without=count - len(values),
    )


def _tests(
    task: str, measure: str, values: Mapping[str, Values], seed: int
) -> Iterator[PairedTest]:
    """Compare each method with those before it, over the places where both have a value."""
    pairs = list(itertools.combinations(values, 2))
    found = [_differences(values[second], values[first]) for first, second in pairs]
    made = []
    for (first, second), differences in zip(pairs, found, strict=True):
        if not differences:
            continue
        made.append((second, first, differences, _by_patient(differences)))
    ps = [signed_rank(means) for *_, means in made]
    corrected = iter(holm([p for p in ps if p is not None]))
    for (first, second, differences, means), p in zip(made, ps, strict=True):
        ends = _interval(means, differences, seed)[1]
        several = len(means) > 1
        yield PairedTest(
            task=task,
            measure=measure,
            first=first,
            second=second,
            difference=_mean(means),
            low=ends[0] if ends else None,
            high=ends[1] if ends else None,
            pairs=len(means if several else differences),
            of="patients" if several else "slices",
            p=p,
            p_holm=None if p is None else next(corrected),
        )


def _differences(values: Values, others: Values) -> dict[Place, float]:
    return {place: value - others[place] for place, value in values.items() if place in others}


def _interval(
    means: Sequence[float], values: Values, seed: int
) -> tuple[str, tuple[float, float] | None]:
    """Return what was resampled, and the interval."""
    several = len(means) > 1
    ends = bootstrap_interval(means if several else list(values.values()), seed)
    return ("" if ends is None else "patients" if several else "slices"), ends


def _by_patient(values: Values) -> list[float]:
    """Return the mean over the values of each patient."""
    of_patient: dict[str, list[float]] = {}
    for (patient, _, _), value in values.items():
        of_patient.setdefault(patient, []).append(value)
    return [_mean(found) for found in of_patient.values()]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
