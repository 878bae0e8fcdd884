"""A degraded scan with lesions and the same without, and pairs of them that cross."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from restore_rwkv.errors import InputError
from restore_rwkv.evaluation.challenge.lesions import Lesion, plant
from restore_rwkv.evaluation.challenge.methods import Method
from restore_rwkv.evaluation.fidelity import RestoredPair
from restore_rwkv.io import Progress, Volume
from restore_rwkv.tasks import Degraded, DegradeOptions, Task, degrade, slice_axis


@dataclass(frozen=True, eq=False)
class PairedScan:
    """A good scan and its low-quality form, to which lesions can be added in the same noise.

    Attributes:
        made: the scan and its low-quality form.
        task: its task.
        options: of the degradation.
        seed: of its noise.
    """

    made: Degraded
    task: Task
    options: DegradeOptions
    seed: int

    @classmethod
    def of(
        cls,
        volume: Volume,
        task: Task,
        options: DegradeOptions | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> PairedScan:
        """Degrade a scan; arguments and errors are those of `degrade`."""
        options = options or DegradeOptions()
        made = degrade(volume, task, options, seed=seed, progress=progress)
        return cls(made, task, options, seed)

    @property
    def factor(self) -> float:
        """Reduction of the measurement."""
        return self.options.factor_for(self.task)

    def low_of(self, changed: Volume) -> Volume:
        """Return the low-quality form of the scan with lesions, in the same noise.

        Args:
            changed: the scan with lesions, on the same grid.
        """
        import torch

        generator = torch.Generator().manual_seed(self.seed)
        rules = self.task.rules
        return rules.degrade_changed(self.made, changed, self.task, self.options, generator)


@dataclass(frozen=True, eq=False)
class CrossingPairs:
    """Low-quality and restored scans in one noise, with lesions and without.

    Attributes:
        task: of the scan.
        factor: reduction of the measurement.
        lesions: that were planted.
        truth_with, truth_without: scans of full quality.
        before_with, before_without: their low-quality forms.
        after_with, after_without: restored from these.
    """

    task: Task
    factor: float
    lesions: tuple[Lesion, ...]
    truth_with: Volume
    truth_without: Volume
    before_with: Volume
    before_without: Volume
    after_with: Volume
    after_without: Volume

    def removed(self) -> RestoredPair:
        """Return the scan with lesions, and a restored form that has lost them all."""
        return self._pair(self.before_with, self.after_without)

    def invented(self) -> RestoredPair:
        """Return the scan without lesions, and a restored form that has made them up."""
        return self._pair(self.before_without, self.after_with)

    def kept(self) -> RestoredPair:
        """Return the scan with lesions, and what was restored from it."""
        return self._pair(self.before_with, self.after_with)

    def clean(self) -> RestoredPair:
        """Return the scan without lesions, and what was restored from it."""
        return self._pair(self.before_without, self.after_without)

    def _pair(self, before: Volume, after: Volume) -> RestoredPair:
        return RestoredPair(
            before=before,
            after=after,
            task=self.task,
            axis=slice_axis(before, self.task),
            factor=self.factor,
        )


def crossing_pairs(
    scan: PairedScan, lesions: Sequence[Lesion], method: Method, without: Volume | None = None
) -> CrossingPairs:
    """Restore a scan with lesions and without, for pairs in which they are lost or made up.

    Args:
        scan: a degraded scan, see `PairedScan.of`.
        lesions: that do not overlap, as `find_sites` places them.
        method: what restores.
        without: what the method makes of the scan without lesions, where that is known already.

    Raises:
        InputError: there are no lesions, or as `plant`.

    Example:
        >>> scan = PairedScan.of(volume, get_task("ct-denoise"))  # doctest: +SKIP
        >>> sites = find_sites(scan.made.high, scan.task, 60, 0)  # doctest: +SKIP
        >>> lesions = [Lesion(centre=s, radius=5, contrast=10) for s in sites]  # doctest: +SKIP
        >>> removed = crossing_pairs(scan, lesions, method).removed()  # doctest: +SKIP
    """
    if not lesions:
        raise InputError("lesions: there are none; give at least one")
    truth = scan.made.high
    changed = plant(truth, lesions)
    low = scan.low_of(changed)
    return CrossingPairs(
        scan.task,
        scan.factor,
        tuple(lesions),
        changed,
        truth,
        low,
        scan.made.low,
        method(low),
        method(scan.made.low) if without is None else without,
    )
