"""What a challenge is asked to do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from restore_rwkv.data import Split
from restore_rwkv.errors import ConfigError
from restore_rwkv.evaluation.challenge.sites import APART
from restore_rwkv.options import Count, Seed, validated
from restore_rwkv.tasks import AUTO, Task
from restore_rwkv.tasks.modality import check_factor

_CONTRASTS = {"CT": (5.0, 10.0, 20.0), "MR": (5.0, 10.0, 20.0), "PT": (20.0, 50.0, 100.0)}
_HIGHEST = {"CT": 1000.0, "MR": 400.0, "PT": 1000.0}


@validated()
@dataclass(frozen=True, kw_only=True)
class ChallengeRequest:
    """What is planted, where, and what restores it.

    Attributes:
        scans: scans of full quality, and folders of prepared sets; all of one task.
        weights: names of shipped weights, or weight files, of ours and of peers; the task's own
            without any.
        task: task of the scans; "auto" picks the one for the modality that each file states.
        contrasts: of lesions, above 0, in HU or in percent of the local value (MRI, PET); each is
            planted brighter at one half of the places and darker at the other, but for what is
            above 100 %, which is brighter everywhere. By default 5, 10 and 20 (CT, MRI) or 20, 50
            and 100 (PET).
        radii: of lesions in mm.
        places: most lesions of one kind in a scan.
        apart: least distance in mm of lesions in one slice.
        slices: most slices of a scan, those with most room for lesions; all of PET, whose slices
            are simulated together.
        factor: of the degradation; None for that of the task.
        split: of prepared sets.
        seed: of places and noise.
        device: as for `Restorer`.
        command: what the user typed, for the provenance.

    Raises:
        ConfigError: a value is of another type or out of range, or given twice.
    """

    scans: tuple[Path, ...]
    weights: tuple[str | Path, ...] = ()
    task: str = AUTO
    contrasts: tuple[float, ...] = ()
    radii: tuple[float, ...] = (5.0,)
    places: Count = 20
    apart: float = APART
    slices: Count = 24
    factor: float | None = None
    split: Split = "test"
    seed: Seed = 0
    device: str = "auto"
    command: str = ""

    def __post_init__(self) -> None:
        check_factor(self.factor)
        if not self.scans:
            raise ConfigError("scans: there are none; give at least one")
        for name in ("contrasts", "radii"):
            values = getattr(self, name)
            wrong = [value for value in values if not 0 < value < math.inf]
            if wrong:
                raise ConfigError(f"{name}: {wrong[0]:g} makes no lesion; give numbers above 0")
            if len(set(values)) < len(values):
                raise ConfigError(f"{name}: a number is given twice; give each once")
        if self.radii and not 4 * max(self.radii) <= self.apart < math.inf:
            raise ConfigError(
                f"apart is {self.apart:g} mm, and lesions are looked at within two radii; give at "
                f"least {4 * max(self.radii):g}"
            )
        if not self.radii:
            raise ConfigError("radii: there are none; give at least one, such as 5")

    def contrasts_for(self, task: Task) -> tuple[float, ...]:
        """Return the contrasts of a task.

        Raises:
            ConfigError: one is far above what can be called a lesion.
        """
        contrasts = self.contrasts or _CONTRASTS[task.modality]
        highest = _HIGHEST[task.modality]
        if max(contrasts) > highest:
            unit = "HU" if task.unit == "HU" else "%"
            raise ConfigError(
                f"contrasts: {max(contrasts):g} {unit} is no lesion of {task.rules.title}; give "
                f"at most {highest:g} {unit}"
            )
        return contrasts
