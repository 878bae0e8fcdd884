"""The strength of the correction of a scan, from the noise that a reduced dose added to it."""

from __future__ import annotations

import logging

from restore_rwkv.errors import ConfigError
from restore_rwkv.io import Volume
from restore_rwkv.tasks import AddedNoise, Strength, Task

_logger = logging.getLogger(__name__)

_HARDLY = 0.1  # strength


def find_strength(
    volume: Volume,
    task: Task,
    factor: float | None,
    given: float | None,
    calibration: Strength | None,
    *,
    told: bool = False,
) -> tuple[AddedNoise | None, float]:
    """Find the noise that was added to a scan, and the strength of the correction.

    Args:
        volume: the low-quality scan.
        task: what it is restored for.
        factor: how much less was measured, if the user says so.
        given: strength that the user wants.
        calibration: that of the weights for the task.
        told: whether the network is told the level of the noise.

    Returns:
        The noise, None where it does not matter, and the strength, 0 to 1; 1 without calibration.

    Raises:
        ConfigError: `factor` or `given` would change nothing, or contradict each other.
    """
    if task.rules.noise_unit is None:
        if given not in (None, 1):
            raise ConfigError(
                f"strength: is for the noise of a reduced dose, not {task.name}; leave it out"
            )
        return None, 1.0
    if not told and given is not None:
        if factor is not None:
            raise ConfigError("strength and factor are both given; give one of them")
        return None, given
    if not told and calibration is None:
        if factor is not None:
            raise ConfigError(
                f"factor: the weights have no calibrated strength for {task.name}, so it would "
                "change nothing; leave it out, or calibrate them (docs/restoring.md)"
            )
        return None, 1.0
    known = (None, None) if calibration is None else (calibration.reference, calibration.pixel)
    noise = task.rules.added_noise(volume, task, factor, *known)
    if given is None:
        given = 1.0 if calibration is None else calibration.at(noise.ratio)
        if noise.reference is not None and given < _HARDLY:
            _logger.warning(
                "%s: is hardly noisier than a scan of full dose, so it is left nearly as it is "
                "(strength %.2f); give factor=F if it was taken at 1/F of the dose",
                *(volume.name, given),
            )
    _logger.info("%s: %s", volume.name, strength_line(task, noise, given))
    return noise, given


def strength_line(task: Task, noise: AddedNoise | None, strength: float) -> str | None:
    """Return the line of a plan about the strength; None for full strength without a reason."""
    if noise is None:
        return None if strength == 1 else f"strength: {strength:.2f}, as given"
    if noise.assumed is not None:
        reason = f"1/{noise.factor:g} of the dose is assumed, as {noise.assumed}"
    elif noise.factor is not None:
        reason = f"at 1/{noise.factor:g} of the dose"
    else:
        unit = task.rules.noise_unit
        reason = (
            f"noise of {noise.found:.3g} {unit} found, up to {noise.reference:.3g} in a scan of "
            "full dose; give the factor if you know it"
        )
    return f"strength: {strength:.2f}, {reason}"
