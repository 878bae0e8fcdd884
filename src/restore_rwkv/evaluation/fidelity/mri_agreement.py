"""Figures of a restored MRI scan: what agrees with the measured k-space, and what was inferred."""

from __future__ import annotations

import math

import numpy as np

from restore_rwkv.errors import OperatorError
from restore_rwkv.evaluation.fidelity.mri_parts import (
    CANNOT_SEE,
    block_factor,
    difference,
    parts,
)
from restore_rwkv.evaluation.fidelity.reasons import reason_of
from restore_rwkv.evaluation.fidelity.results import Figure, RestoredPair, Support
from restore_rwkv.tasks.modality import spread_slices

# Measured on 8 stacks of training and validation subjects, restored by light-mri-sr: R is 0.0011
# to 0.0022 with the task's consistency, 0.012 to 0.019 without, 0.039 for cubic splines.
_HELD, _NEAR = 0.005, 0.025
# Of the power of y, 0.00003 to 0.00085 lay outside its block, and 0.0096 to 0.018 of the same
# scans measured with a third; in the rim 0.011 to 0.017, and at most 0.0005 with a sixth.
_OUTSIDE, _RIM = 0.003, 0.002
_MISSING = "values of the scan are missing (NaN), so that its k-space is not what was measured"


def agreement(pair: RestoredPair) -> list[Figure]:
    """Return the disagreement R, the block of the scan, what was inferred, and values below 0."""
    block = _block(pair)
    return [_consistency(pair, block), block, _inferred(pair, block), _negative(pair)]


def _consistency(pair: RestoredPair, block: Figure) -> Figure:
    """R = |D(x) - y| / |y|, over all slices."""
    wrong = total = 0.0
    for _, low, image in parts(pair.before.slices(pair.axis), pair.after.slices(pair.axis)):
        error = difference(low, image, block_factor(pair), not pair.signed)
        wrong += float(np.square(error, dtype=np.float64).sum())
        total += float(np.square(low, dtype=np.float64).sum())
    value = math.sqrt(wrong / total) if total > 0 else None
    reason = "" if total > 0 else "the scan is 0 everywhere"
    if unknown := _unknown(block):
        value, reason = None, unknown
    if value is None:
        support: Support = "unknown"
        says = f"What was measured cannot be compared: {reason}."
    else:
        support, says = _how_near(value)
    return Figure(
        name="consistency",
        title="disagreement with the measured k-space",
        value=value,
        unit="",
        support=support,
        expected=f"0 for the truth; below {_HELD:g} for an image held to the measurement",
        says=says,
        blind_to=f"It cannot see {CANNOT_SEE}.",
        reason=reason,
    )


def _how_near(value: float) -> tuple[Support, str]:
    if value <= _HELD:
        return "supported", "The image agrees with everything that was measured."
    if value <= _NEAR:
        return "look", (
            "The image agrees with what was measured only roughly, as the output of a network that "
            "was not held to it; restore it with consistency=5."
        )
    return "unsupported", (
        "The image contradicts what was measured. Either it is not a restored form of this scan, "
        "was changed or filtered since, or the scan was cropped, so that its k-space is not what "
        "was measured."
    )


def _block(pair: RestoredPair) -> Figure:
    """Share of the power of the scan outside the block that is assumed."""
    import torch

    from restore_rwkv.physics.mri import kspace_extent

    slices = torch.from_numpy(spread_slices(pair.before, pair.axis))
    value: float | None = None
    support: Support = "unknown"
    reason = ""
    says = "Whether the block of k-space assumed is that of the scan is not known."
    try:
        found = kspace_extent(slices, block_factor(pair))
    except OperatorError as error:
        reason = reason_of(error)
    else:
        value = 100 * found.outside
        support, says = _how_far(found.outside, found.rim, pair)
        missing = pair.before.missing
        if support == "unsupported" and missing is not None and missing.any():
            # What fills them has edges, whose power lies outside of every block.
            value, support, reason = None, "unknown", _MISSING
            says = (
                f"Whether the block of k-space assumed is that of the scan is not known: {reason}."
            )
    return Figure(
        name="block",
        title="power of the scan outside the block assumed",
        value=value,
        unit="%",
        support=support,
        expected=f"below {100 * _OUTSIDE:g} %",
        says=says,
        blind_to="It cannot see a scan of another block whose outer samples hold hardly any power.",
        reason=reason,
    )


def _unknown(block: Figure) -> str:
    """Return why nothing can be compared with the measured block; "" where it can."""
    if block.support == "unsupported":
        return "the block of k-space assumed is not that of the scan"
    return _MISSING if block.reason == _MISSING else ""


def _how_far(outside: float, rim: float, pair: RestoredPair) -> tuple[Support, str]:
    factor = block_factor(pair)
    text = " x ".join(f"{f:.3g}" for f in (factor if isinstance(factor, tuple) else (factor,)))
    if outside > _OUTSIDE:
        return "unsupported", (
            f"The scan has more k-space than a factor of {text} measures, so this report assumes a "
            "wrong factor, or the scan was changed since; give its factor."
        )
    if rim < _RIM:
        return "look", (
            f"The outer sixth of the block of factor {text} is nearly empty: less was measured "
            "than this report assumes, and more was inferred."
        )
    return "supported", f"The k-space of the scan ends where a factor of {text} says."


def _inferred(pair: RestoredPair, block: Figure) -> Figure:
    """Share of the energy of the restored image outside the measured block."""
    import torch

    from restore_rwkv.physics.mri import CartesianMRI

    after = pair.after.slices(pair.axis)
    system = CartesianMRI((after.shape[1], after.shape[2]), block_factor(pair))
    inside = total = 0.0
    for _, image, _ in parts(after, after):
        measured = system.A(torch.from_numpy(image)).abs().double().square().sum()
        inside += float(measured) * math.prod(system.shape)
        total += float(np.square(image, dtype=np.float64).sum())
    reason = "the image is 0 everywhere" if not total > 0 else _unknown(block)
    value = None if reason else max(100 * (1 - inside / total), 0.0)
    kept = 100 * math.prod(system.kept) / math.prod(system.shape)
    says = (
        f"{kept:.3g} % of k-space was measured and {100 - kept:.4g} % was inferred; what was "
        f"inferred holds {0.0 if value is None else value:.3g} % of the energy of the image, and "
        "all of its fine detail."
    )
    if value is None:
        says = f"What was inferred is not known: {reason}."
    return Figure(
        name="inferred",
        title="energy that was inferred, not measured",
        value=value,
        unit="%",
        support="unknown" if value is None else "supported",
        expected="0.6 to 1.4 % for the shipped weights, less than the 2 to 4.4 % of the truth",
        says=says,
        blind_to="It says how much was inferred, not whether that is right.",
        reason=reason,
    )


def _negative(pair: RestoredPair) -> Figure:
    """Share of the values below 0, which a magnitude does not have."""
    share = 100 * float(np.mean(pair.after.data < 0))
    reason = "the scan has signs of its own" if pair.signed else ""
    support: Support = "supported" if share == 0 else "look" if share < 1 else "unsupported"
    says = (
        "No value is below 0, as it should be for a magnitude."
        if share == 0
        else f"{share:.3g} % of the values are below 0, which no magnitude can be."
    )
    return Figure(
        name="negative",
        title="values below 0",
        value=None if pair.signed else share,
        unit="%",
        support="unknown" if pair.signed else support,
        expected="0 %",
        says=f"Values below 0 mean nothing here: {reason}." if pair.signed else says,
        blind_to="It says nothing about values above 0.",
        reason=reason,
    )
