"""What a challenge found, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restore_rwkv.evaluation.physical import Detectability

LOST = 0.5
"""A lesion of which less than this part of the contrast is left is lost."""

EXAGGERATED = 1.5
"""A lesion that has more than this part of its contrast is exaggerated."""

KEPT = (0.75, 1.33)
"""A lesion is kept if this part of its contrast is left."""

INVENTED = 0.5
"""A place is painted if the image exceeds input and truth by more than this part of a contrast."""


@dataclass(frozen=True)
class Rate:
    """How often something happened.

    Attributes:
        hits: how often it did.
        count: how often it could have.
    """

    hits: int
    count: int

    @classmethod
    def of(cls, hits: Sequence[bool] | NDArray[np.bool_]) -> Rate:
        """Count what is true."""
        return cls(int(np.sum(hits)), len(hits))

    @property
    def share(self) -> float | None:
        """Part of the cases, 0 to 1; None without any."""
        return self.hits / self.count if self.count else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Exact 95 % interval of the share (Clopper & Pearson, Biometrika 26:404, 1934).

        It takes cases as independent, and those of one scan are less than that: it says nothing
        about other scans.
        """
        if not self.count:
            return None
        from scipy.stats import binomtest

        found = binomtest(self.hits, self.count).proportion_ci(0.95, method="exact")
        return float(found.low), float(found.high)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        low, high = self.interval or (None, None)
        values = {"hits": self.hits, "count": self.count, "share": self.share}
        return values | {"low": low, "high": high}


@dataclass(frozen=True, kw_only=True)
class LesionRow:
    """One lesion under one method.

    Attributes:
        scan: name of the scan.
        method: name of the method.
        contrast: in HU or %, below 0 where it is darker.
        radius: in mm.
        index: voxel of its middle in the array of the scan.
        retained: contrast in the difference of the restored scans with and without lesions, over
            that in the difference of the truths.
    """

    scan: str
    method: str
    contrast: float
    radius: float
    index: tuple[int, int, int]
    retained: float


@dataclass(frozen=True, kw_only=True)
class PlaceRow:
    """One place without a lesion under one method, all in the unit of contrasts.

    Attributes:
        scan: name of the scan.
        method: name of the method.
        radius: of the lesion that is looked for, in mm; the place has two of them.
        index: voxel of its middle.
        shown: contrast of the method's image, where it paints most.
        of_input: contrast of the input.
        of_truth: contrast of the scan of full quality.
        painted: by how much the first exceeds what the others show nearby; see `PaintSearch`.
    """

    scan: str
    method: str
    radius: float
    index: tuple[int, int, int]
    shown: float
    of_input: float
    of_truth: float
    painted: float


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A method on all lesions of one contrast and radius.

    Attributes:
        method: name of the method.
        contrast: above 0, in HU or %; brighter and darker lesions together.
        radius: in mm.
        lesions: how many.
        scans: in how many scans.
        retained: mean of the retained contrast, 1 for all of it.
        spread: its standard deviation over lesions.
        lost, exaggerated: see `LOST` and `EXAGGERATED`; the field kept likewise, see `KEPT`.
        lost_bright, lost_dark: the same as `lost`, of brighter and of darker lesions.
        invented: places without a lesion that the method paints one at; see `INVENTED`.
        seen: d' of an observer that knows place, shape and background; None where there is none.
        reason: why not.
        score: mean over lesions of `max(0, 1 - |1 - retained|)`, minus the share of painted places:
            1 where every lesion has its contrast and no place is painted.
    """

    method: str
    contrast: float
    radius: float
    lesions: int
    scans: int
    retained: float
    spread: float
    lost: Rate
    kept: Rate
    exaggerated: Rate
    lost_bright: Rate
    lost_dark: Rate
    invented: Rate
    seen: Detectability | None
    reason: str
    score: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The first method and another one on the same lesions of one contrast and radius.

    Attributes:
        method: name of the first.
        other: name of the other.
        contrast: above 0, in HU or %; brighter and darker lesions together.
        radius: in mm.
        lesions: how many.
        scans: in how many scans.
        retained: mean over lesions of the retained contrast of the first less that of the other.
        interval: 95 % bootstrap interval of that, over lesions; None for fewer than two. It is
            within these scans, and says nothing about others.
        lost: how many the first loses and the other does not.
        lost_by_other: the other way round.
        p: of McNemar's test of these two numbers, two-sided and exact: `min(1, 2 P(X <= min))`
            with X binomial, of both lesions and a half (McNemar, Psychometrika 12:153, 1947); None
            where both are 0.
    """

    method: str
    other: str
    contrast: float
    radius: float
    lesions: int
    scans: int
    retained: float
    interval: tuple[float, float] | None
    lost: int
    lost_by_other: int
    p: float | None


@dataclass(frozen=True, kw_only=True)
class Overall:
    """A method on everything.

    Attributes:
        method: name of the method.
        score: mean of the scores of all contrasts and radii, at most 1. The input as it is has 1 in
            CT, as noise that is left alone loses nothing: the score says what a method costs, and
            d' and the quality of its images say what it is good for.
        flagged: patches that sFRC flags in the scans without lesions; see `scan_ring_correlation`.
        agreement: frequency in cycles per mm up to which the median patch agrees with the truth;
            None without patches.
    """

    method: str
    score: float
    flagged: Rate
    agreement: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """One place as it looks, (rows, columns) of a slice as it is displayed.

    Attributes:
        contrast: in HU or %, below 0 where the lesion is darker.
        radius: of the lesion in pixels.
        scan: name of the scan.
        images: by name: "truth" with the lesion, and what each method makes of it.
        limits: values shown as black and as white.
    """

    contrast: float
    radius: float
    scan: str
    images: Mapping[str, NDArray[np.float32]]
    limits: tuple[float, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class Challenge:
    """What lesions became under several methods.

    Attributes:
        task: name of the task.
        unit: of contrasts: "HU" or "%".
        methods: in the order of the tables.
        scans: slices, lesions of one kind, and places without a lesion, by name of the scan.
        lesions, places: one row for each lesion or place, and method.
        summaries: by method, contrast and radius.
        comparisons: of the first method with every other one, by contrast and radius.
        overall: by method.
        frequency: in cycles per mm, up to which patches have to agree with the truth.
        examples: what a few places look like.
        provenance: versions, options, digests of scans and weights, as plain JSON values.
    """

    task: str
    unit: str
    methods: tuple[str, ...]
    scans: Mapping[str, tuple[int, int, int]]
    lesions: tuple[LesionRow, ...]
    places: tuple[PlaceRow, ...]
    summaries: tuple[Summary, ...]
    comparisons: tuple[Comparison, ...]
    overall: tuple[Overall, ...]
    frequency: float
    examples: tuple[Example, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
