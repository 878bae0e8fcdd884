"""What an evaluation is asked to do, and which measures that means."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from restore_rwkv.data import Split
from restore_rwkv.errors import ConfigError
from restore_rwkv.evaluation.measures.catalogue import all_measures, measures_named
from restore_rwkv.evaluation.measures.measure import Measure
from restore_rwkv.evaluation.study.results import INPUT
from restore_rwkv.options import Seed, Whole, nearest, validated
from restore_rwkv.restoration import RestoreOptions
from restore_rwkv.tasks import AUTO, Task

PAPER = "paper"
ALL = "all"


@validated()
@dataclass(frozen=True, kw_only=True)
class StudyRequest:
    """What is scored, and how.

    Attributes:
        truths: what images are compared with: scans of full quality, which are degraded by the
            physics of the task; prepared sets, or folders of such sets, which hold both qualities;
            or, with `restored` or `low`, images that are taken as they are, in files or folders.
        restored: folders (or files) of images restored by anything, by the name of the method.
            Images belong together by their paths without suffix; see docs/evaluating.md.
        low: folder (or file) of the low-quality images, where `truths` are images.
        weights: names of shipped weights, or weight files; each restores all scans of the tasks
            that it was trained for. Without any, and without `restored` and `low`, each task's own.
        task: task of the scans; "auto" picks the one for the modality that each file states.
        patient: regular expression that finds the patient in the name of a scan; None for the
            rules of docs/evaluating.md.
        protocols: names of protocols, whose measures are computed; see `measures_for`.
        measures: names of further measures; "all" for all.
        split: split of prepared sets to score.
        axes: as in `DegradeOptions`.
        seed: seed of the degradation of scans, and of the bootstrap.
        device: as for `Restorer`.
        options: as for `evaluate`; with `force`, images that seem to be in another unit are scored.
        keep: new folder for the images that were computed; None to keep none.
        panels: largest number of slices to look at for each task.
        command: what the user typed, for the provenance.

    Raises:
        ConfigError: a value is of another type, or `patient` is no pattern.
    """

    truths: tuple[Path, ...]
    restored: Mapping[str, Path] = field(default_factory=dict)
    low: Path | None = None
    weights: tuple[str | Path, ...] = ()
    task: str = AUTO
    patient: str | None = None
    protocols: tuple[str, ...] = (PAPER,)
    measures: tuple[str, ...] = ()
    split: Split = "test"
    axes: str | None = None
    seed: Seed = 0
    device: str = "auto"
    options: RestoreOptions = field(default_factory=RestoreOptions)
    keep: Path | None = None
    panels: Whole = 0
    command: str = ""

    def __post_init__(self) -> None:
        try:
            re.compile(self.patient or "")
        except re.error as error:
            raise ConfigError(f"patient {self.patient!r} is not a pattern ({error})") from error

    @property
    def inputs(self) -> tuple[Path, ...]:
        """Files and folders that are read."""
        return (*self.truths, *self.roots.values())

    @property
    def roots(self) -> dict[str, Path]:
        """Folders of images by name of the method, "input" first."""
        low = {} if self.low is None else {INPUT: self.low}
        return {**low, **self.restored}

    @property
    def from_files(self) -> bool:
        """Whether images on disk are scored, so that scans are not degraded."""
        return bool(self.restored) or self.low is not None


def measures_for(
    protocols: Sequence[str], names: Sequence[str], tasks: Sequence[Task]
) -> tuple[Measure, ...]:
    """Return the measures of protocols, and further ones by name, each once and in that order.

    Raises:
        ConfigError: a protocol or measure is unknown, or a measure that was named is for none of
            the tasks.
    """
    from restore_rwkv.evaluation.measures.protocols import PROTOCOLS

    for name in protocols:
        if name not in PROTOCOLS:
            raise ConfigError(
                f"protocol {name!r} is unknown, the nearest is {nearest(name, PROTOCOLS)!r}; "
                f"choose from {', '.join(PROTOCOLS)}"
            )
    of_protocols = [name for protocol in protocols for name in PROTOCOLS[protocol]]
    given = [name for name in names if name != ALL]
    for measure in measures_named(given):
        if not any(measure.suits(task) for task in tasks):
            raise ConfigError(
                f"measure {measure.name!r} is for {' or '.join(measure.modalities)}, not for "
                f"{' or '.join(task.name for task in tasks)}; leave it out"
            )
    others = all_measures() if ALL in names else ()
    chosen = measures_named([*of_protocols, *given, *others])
    return tuple(measure for measure in chosen if any(measure.suits(task) for task in tasks))


def protocol_of(measure: Measure) -> str:
    """Return the name of the protocol of a measure; "" where it belongs to none."""
    from restore_rwkv.evaluation.measures.protocols import PROTOCOLS

    return next((name for name, names in PROTOCOLS.items() if measure.name in names), "")
