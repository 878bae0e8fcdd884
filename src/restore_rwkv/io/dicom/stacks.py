"""What tells images at one position apart: echoes, time points, phases, or nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from restore_rwkv.io.decoding import DECODING_ERRORS
from restore_rwkv.io.dicom.line import fit_line
from restore_rwkv.io.stored import Float64Array

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# Names and elements in the order in which they are tried: first those that say what differs, last
# those that only differ with it.
_ELEMENTS: tuple[tuple[str, str | int], ...] = (
    ("StackID", "StackID"),
    ("EchoNumbers", "EchoNumbers"),
    ("EchoTime", "EchoTime"),
    ("EffectiveEchoTime", "EffectiveEchoTime"),
    ("TemporalPositionIdentifier", "TemporalPositionIdentifier"),
    ("TemporalPositionIndex", "TemporalPositionIndex"),
    ("DiffusionBValue", "DiffusionBValue"),
    ("the b-value (0019,100C)", 0x0019100C),
    ("InversionTime", "InversionTime"),
    ("NominalPercentageOfCardiacPhase", "NominalPercentageOfCardiacPhase"),
    ("NominalCardiacTriggerDelayTime", "NominalCardiacTriggerDelayTime"),
    ("TriggerTime", "TriggerTime"),
    ("ComplexImageComponent", "ComplexImageComponent"),
    ("FrameType", "FrameType"),
    ("ImageType", "ImageType"),
    ("AcquisitionNumber", "AcquisitionNumber"),
    ("AcquisitionTime", "AcquisitionTime"),
)
_MOST_NAMED = 4


def what_separates(
    headers: Sequence[Dataset], positions: Float64Array, normal: Float64Array
) -> str | None:
    """Name the element that separates images into several regular stacks, and its values.

    Args:
        headers: Headers of the images, several at each position.
        positions: (N, 3) of the images in mm.
        normal: (3,) perpendicular to them.

    Returns:
        Such as "EchoNumbers separates 2 stacks (1, 2)"; None if no element does.
    """
    for name, element in _ELEMENTS:
        groups: defaultdict[str, list[int]] = defaultdict(list)
        for i, header in enumerate(headers):
            groups[_value(header, element)].append(i)
        sizes = {len(group) for group in groups.values()}
        if len(groups) < 2 or len(sizes) > 1:
            continue
        if all(fit_line(positions[group], normal).is_regular() for group in groups.values()):
            values = [value or "none" for value in groups]
            named = ", ".join(values[:_MOST_NAMED]) + ", ..." * (len(values) > _MOST_NAMED)
            return f"{name} separates {len(groups)} stacks ({named})"
    return None


def _value(header: Dataset, element: str | int) -> str:
    try:
        value = header.get(element)
        value = getattr(value, "value", value)  # by its number, the whole element comes back
    except DECODING_ERRORS:
        return ""
    if value is None:
        return ""
    return str(value) if isinstance(value, str | int | float) else "\\".join(map(str, value))
