"""Lesions are planted, degraded, restored and looked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from restore_rwkv.errors import InputError
from restore_rwkv.evaluation.challenge.agreement import Agreement
from restore_rwkv.evaluation.challenge.comparing import comparisons_of
from restore_rwkv.evaluation.challenge.examples import clearest, example_of
from restore_rwkv.evaluation.challenge.lesions import Index, Lesion, edge_of, is_relative, plant
from restore_rwkv.evaluation.challenge.methods import (
    BLUR,
    INPUT,
    ByWeights,
    Method,
    equal_blur,
    methods_of,
    unchanged,
)
from restore_rwkv.evaluation.challenge.painting import PLACE, PaintSearch
from restore_rwkv.evaluation.challenge.pairs import PairedScan
from restore_rwkv.evaluation.challenge.provenance import provenance_of
from restore_rwkv.evaluation.challenge.request import ChallengeRequest
from restore_rwkv.evaluation.challenge.results import Challenge, Example, LesionRow, PlaceRow
from restore_rwkv.evaluation.challenge.scoring import Probe
from restore_rwkv.evaluation.challenge.seeing import SeenRegions
from restore_rwkv.evaluation.challenge.sites import find_sites, middles_of
from restore_rwkv.evaluation.challenge.sources import GoodScan, find_scans
from restore_rwkv.evaluation.challenge.summaries import overall_of, summaries_of
from restore_rwkv.io import PartProgress, Progress, Volume, begin_stage
from restore_rwkv.tasks import DegradeOptions, Task, slice_axis

FREE = 200
"""Most places without a lesion that are looked at in a scan."""

_EXAMPLES = 1  # scans that examples are taken of


def run_challenge(
    request: ChallengeRequest,
    progress: Progress | None = None,
    *,
    methods: Mapping[str, Method] | None = None,
) -> Challenge:
    """Plant lesions in good scans, degrade and restore them, and measure what is left.

    Each scan is degraded once. For each contrast and radius, lesions are planted at all its places
    at once, and it is degraded again in the same noise, so that the difference of the restored
    scans with and without lesions holds the lesions alone. A lesion that is taken away from a scan
    that has it gives the same difference with the other sign; that a method does not keep showing
    it is measured at the places without lesions, where its image is compared with the truth.

    Args:
        request: what is planted, and where.
        progress: told the stages, and called with (slices restored, all).
        methods: what restores, by name; in place of weights unless there are some as well. The
            input as it is and, where there is another method, a blur are always added.

    Raises:
        InputError: a scan cannot be used, or has no place for a lesion.
        ConfigError: a method cannot be used, or a contrast is no lesion of the task.
        WeightsError: weights are missing, damaged, or for another task.

    Example:
        >>> request = ChallengeRequest(scans=(Path("ct.nii.gz"),))  # doctest: +SKIP
        >>> for found in run_challenge(request).summaries:  # doctest: +SKIP
        ...     print(found.method, found.contrast, found.retained, found.lost.share)
    """
    begin_stage(progress, "looking at the scans")
    scans = find_scans(request)
    task = scans[0].task
    contrasts = request.contrasts_for(task)
    factor = DegradeOptions(factor=request.factor).factor_for(task)
    every: dict[str, Method] = dict(methods or {})
    if request.weights or not every:
        every |= methods_of(request.weights, task, factor, request.device)
    for name in (INPUT, BLUR):
        if name in every:
            raise InputError(f"{name}: this name is taken; name the method otherwise")
    counts = [_slices_of(scan, request) for scan in scans]
    run = _Run(request, task, contrasts, every, _Count(progress, every, len(contrasts), request))
    for number, (scan, count) in enumerate(zip(scans, counts, strict=True)):
        run.count.begin(scan.name, sum(counts), count)
        run.add(scan, number)
    names = (*every, INPUT, BLUR)
    rows = (run.lesions, run.places)
    summaries = summaries_of(names, *rows, run.seen)
    return Challenge(
        task=task.name,
        unit="%" if is_relative(task) else "HU",
        methods=names,
        scans=run.scans,
        lesions=tuple(run.lesions),
        places=tuple(run.places),
        summaries=summaries,
        comparisons=comparisons_of(names, run.lesions),
        overall=overall_of(names, summaries, run.agreement),
        frequency=run.agreement.frequency,
        examples=tuple(sorted(run.examples, key=lambda e: (e.contrast < 0, abs(e.contrast)))),
        provenance=provenance_of(request, scans, every, run.blurs),
    )


def _slices_of(scan: GoodScan, request: ChallengeRequest) -> int:
    """Number of slices of a scan that has room for lesions."""
    volume = scan.read()
    try:
        find_sites(volume, scan.task, 1, request.seed, radius=max(request.radii))
    except InputError as error:  # a part of a scan has no name of its own
        text = str(error).removeprefix(f"{volume.name}: ")
        raise InputError(f"{scan.name}: {text}") from error
    return len(volume.slices(slice_axis(volume, scan.task)))


@dataclass(eq=False)
class _Count:
    """Progress in slices restored."""

    progress: Progress | None
    methods: Mapping[str, Method]
    contrasts: int
    request: ChallengeRequest
    done: int = 0
    every: int = 1
    slices: int = 1
    name: str = ""

    def begin(self, name: str, slices: int, own: int) -> None:
        """Begin a scan of so many slices, of so many in all scans."""
        passes = 1 + self.contrasts * len(self.request.radii)
        self.every = slices * passes * len(self.methods)
        self.name, self.slices = name, own

    def stage(self, text: str, unit: str = "") -> None:
        """Say what is done with the scan."""
        begin_stage(self.progress, f"{self.name}: {text}", unit)

    def restored(self, method: Method, low: Volume) -> Volume:
        """Restore a scan, and count its slices."""
        part = None
        if self.progress is not None:
            part = PartProgress(self.progress, self.done, self.slices, self.every)
        if isinstance(method, ByWeights):
            method.progress = part
        after = method(low)
        self.done += self.slices
        if self.progress is not None:
            self.progress(self.done, self.every)
        if after.data.shape != low.data.shape:
            raise InputError(
                f"{self.name}: a method made {after.data.shape} of {low.data.shape} voxels; give "
                "one that keeps the grid"
            )
        return after


@dataclass(eq=False)
class _Run:
    """What was found so far."""

    request: ChallengeRequest
    task: Task
    contrasts: tuple[float, ...]
    methods: Mapping[str, Method]
    count: _Count
    lesions: list[LesionRow] = field(default_factory=list)
    places: list[PlaceRow] = field(default_factory=list)
    seen: SeenRegions = field(default_factory=SeenRegions)
    examples: list[Example] = field(default_factory=list)
    scans: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    blurs: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.agreement = Agreement(self.task, min(self.request.radii))

    def add(self, scan: GoodScan, number: int) -> None:
        """Plant lesions in a scan, and measure what the methods make of them."""
        request, largest = self.request, max(self.request.radii)
        self.count.stage("reading")
        volume = scan.read()
        seed = request.seed + number
        sites = find_sites(
            volume, self.task, request.places, seed, radius=largest, apart=request.apart
        )
        options = DegradeOptions(factor=request.factor)
        self.count.stage("degrading")
        paired = PairedScan.of(volume, self.task, options, seed)
        self.count.stage("restoring", "slices" if number == 0 else "")
        without = {
            name: self.count.restored(method, paired.made.low)
            for name, method in self.methods.items()
        }
        blur = equal_blur(
            *(paired.made.low, next(iter(without.values())), self.task, sites, largest),
            paired.factor,
        )
        self.blurs[scan.name] = blur.sd
        free = {name: method for name, method in ((INPUT, unchanged), (BLUR, blur))}
        without |= {name: method(paired.made.low) for name, method in free.items()}
        self._look_without(scan.name, paired, without, seed)
        case = _Case(scan.name, paired, sites, without, free)
        for radius in request.radii:
            for contrast in self.contrasts:
                self.count.stage(f"lesions of {contrast:g}, {radius:g} mm")
                self._look_with(case, contrast, radius, wanted=number < _EXAMPLES)

    def _look_without(
        self, name: str, paired: PairedScan, without: Mapping[str, Volume], seed: int
    ) -> None:
        """Look for lesions where there are none, and compare patches with the truth."""
        truth, axis = paired.made.high, slice_axis(paired.made.high, self.task)
        most = 0
        for radius in self.request.radii:
            apart = 2 * PLACE * radius
            sites = find_sites(truth, self.task, FREE, seed, radius=radius, apart=apart)
            most = max(most, len(sites))
            tissue = middles_of(truth, self.task, radius)
            search = PaintSearch(truth, without[INPUT], self.task, radius)
            for method, image in without.items():
                for site, shown in zip(sites, search.at(image, sites, tissue), strict=True):
                    self.places.append(
                        PlaceRow(
                            scan=name,
                            method=method,
                            radius=radius,
                            index=site,
                            shown=shown.contrast,
                            of_input=shown.of_input,
                            of_truth=shown.of_truth,
                            painted=shown.painted,
                        )
                    )
        self.scans[name] = (truth.data.shape[axis], 0, most)
        self.agreement.add(truth, without)

    def _look_with(self, case: _Case, contrast: float, radius: float, wanted: bool) -> None:
        """Plant lesions of one kind, and measure what is left of them."""
        truth = case.paired.made.high
        axis = slice_axis(truth, self.task)
        lesions = [
            self._lesion(truth, site, float(sign) * contrast, radius)
            for site, sign in zip(case.sites, self._signs(contrast, len(case.sites)), strict=True)
        ]
        changed = plant(truth, lesions)
        low = case.paired.low_of(changed)
        after = {m: self.count.restored(method, low) for m, method in self.methods.items()}
        after |= {name: method(low) for name, method in case.free.items()}
        planted = changed.data - truth.data
        probes = [Probe.of(truth, lesion, axis) for lesion in lesions]
        heights = [probe.contrast(planted) for probe in probes]
        for method, image in after.items():
            difference = image.data - case.without[method].data
            for site, lesion, probe, height in zip(
                case.sites, lesions, probes, heights, strict=True
            ):
                self.lesions.append(
                    LesionRow(
                        scan=case.name,
                        method=method,
                        contrast=lesion.contrast,
                        radius=radius,
                        index=site,
                        retained=probe.contrast(difference) / height,
                    )
                )
            self.seen.add(
                (method, contrast, radius), truth, (case.without[method], image), lesions, axis
            )
        slices, _, free = self.scans[case.name]
        self.scans[case.name] = (slices, len(lesions), free)
        if wanted and radius == max(self.request.radii):
            self.examples += [
                example_of(case.name, (truth, changed), after, lesion, self.task)
                for lesion in clearest(truth, lesions, self.task)
            ]

    def _lesion(self, volume: Volume, site: Index, contrast: float, radius: float) -> Lesion:
        return Lesion(
            centre=site,
            radius=radius,
            contrast=contrast,
            relative=is_relative(self.task),
            edge=edge_of(self.task, volume),
        )

    def _signs(self, contrast: float, count: int) -> NDArray[np.int_]:
        """Signs of lesions: brighter and darker in turn, but for what cannot be darker."""
        if is_relative(self.task) and contrast > 100:
            return np.ones(count, dtype=int)
        return np.where(np.arange(count) % 2 == 0, 1, -1)


@dataclass(frozen=True, eq=False)
class _Case:
    """A scan, and what the methods make of it without lesions."""

    name: str
    paired: PairedScan
    sites: Sequence[Index]
    without: Mapping[str, Volume]
    free: Mapping[str, Method]
