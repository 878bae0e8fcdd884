"""Stacks of slices, and the splits and qualities of prepared sets."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from restore_rwkv.tasks import Scaling, ScalingRule

Split = Literal["train", "validation", "test"]
Quality = Literal["low", "high"]
SPLITS: tuple[Split, ...] = get_args(Split)
QUALITIES: tuple[Quality, ...] = get_args(Quality)


@dataclasses.dataclass(frozen=True)
class Stack:
    """Slices of one volume, in order.

    Attributes:
        name: unique in its set.
        patient: identifier of the patient; each patient is in one split only, but for
            `PreparedSet.shared_patients`.
        split: "train", "validation" or "test".
        shape: (N, H, W).
        spacing: mm between slices, rows and columns; None where unknown.
        robust_scale: scale of the robust scaling of the low-quality volume, in physical units.
        files: path inside the folder by quality; without "low", the physics of the task makes it.
        sha256: digest of each of these files, by quality, hex.
        origin: source of the volume and record of its degradation, as plain JSON values.
    """

    name: str
    patient: str
    split: Split
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float] | None
    robust_scale: float
    files: Mapping[str, str]
    sha256: Mapping[str, str]
    origin: Mapping[str, Any]

    def scaling(self, rule: ScalingRule) -> Scaling:
        """Scaling of this volume by a rule; reads no image."""
        if rule.kind == "robust":
            return Scaling(0.0, self.robust_scale)
        return Scaling(rule.offset, rule.scale)


@dataclasses.dataclass(frozen=True)
class Count:
    """Numbers of patients, stacks and slices."""

    patients: int
    stacks: int
    slices: int

    @classmethod
    def of(cls, stacks: Sequence[Stack]) -> Count:
        """Count the patients and slices of stacks."""
        patients = {stack.patient for stack in stacks}
        return cls(len(patients), len(stacks), sum(stack.shape[0] for stack in stacks))


def stack_of(entry: Mapping[str, Any]) -> Stack:
    """Parse the entry of a stack in a manifest.

    Raises:
        ValueError: a value is out of range, or a file is missing.
        TypeError: a field is missing, unknown or of another type.
    """
    stack = Stack(**entry)
    if stack.split not in SPLITS:
        raise ValueError(f"{stack.name}: split is {stack.split!r}")
    if not (math.isfinite(stack.robust_scale) and stack.robust_scale > 0):
        raise ValueError(f"{stack.name}: robust_scale is {stack.robust_scale}")
    slices, rows, columns = (int(n) for n in stack.shape)
    if min(slices, rows, columns) < 1 or set(stack.files) != set(stack.sha256):
        raise ValueError(f"{stack.name}: shape or files are wrong")
    if "high" not in stack.files:
        raise ValueError(f"{stack.name}: has no high quality")
    spacing = stack.spacing
    if spacing is not None:
        between, down, along = (float(mm) for mm in spacing)
        spacing = (between, down, along)
    return dataclasses.replace(stack, shape=(slices, rows, columns), spacing=spacing)
