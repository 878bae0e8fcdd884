"""Maps beside a restored scan, such as its uncertainty, as DICOM parametric maps."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from restore_rwkv.io.dicom.derived import SOFTWARE, Derivation, new_series, plain
from restore_rwkv.io.dicom.files import refusing
from restore_rwkv.io.dicom.geometry import LPS_TO_RAS
from restore_rwkv.io.dicom.original import Original, read_original
from restore_rwkv.io.dicom.place import finer_position, finer_spacing
from restore_rwkv.io.volume import Volume

if TYPE_CHECKING:
    from highdicom import VOILUTTransformation
    from highdicom.pm import ParametricMap, RealWorldValueMapping
    from highdicom.sr import CodedConcept

Code = tuple[str, str, str]
"""Value, coding scheme and meaning."""

# Series numbers beside that of the restored series, which is the source's plus 1000.
_NUMBER_OFFSET = 1
_REFUSED = "no parametric map can be made of its headers"


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """What the values of a map are.

    Attributes:
        label: Short name, at most 16 characters, such as "UNCERTAINTY".
        explanation: What a value says, at most 64 characters.
        unit: Code of the unit, such as ("[hnsf'U]", "UCUM", "Hounsfield unit").
        concept: Code of the quantity, such as ("373098007", "SCT", "Mean").
    """

    label: str
    explanation: str
    unit: Code
    concept: Code


def write_parametric_map(
    volume: Volume, path: Path, quantity: Quantity, derivation: Derivation
) -> str:
    """Write a map as a DICOM parametric map, one file of float32 values.

    It lies in the study and the frame of reference of the source, refers to its images, and keeps
    the values bit for bit.

    Args:
        volume: Values of the map, on the grid of its `DicomSource` or a finer one over its field.
        path: File to write, which must not exist.
        quantity: What the values are.
        derivation: What was done; its notice and weights are kept.

    Returns:
        The SeriesInstanceUID of the map.

    Raises:
        InputError: As `write_dicom`, or the source's headers cannot be used for a map.
        OSError: The disk is full, or the folder cannot be written to.
    """
    original = read_original(volume)
    with refusing(volume.name, _REFUSED):
        image = _image(volume, original, quantity, derivation)
    with path.open("xb") as stream:
        image.save_as(stream, enforce_file_format=True)
    return str(image.SeriesInstanceUID)


def check_parametric_map(volume: Volume) -> None:
    """Check before any computation that `write_parametric_map` can write a map of a series.

    Tried is the map of the first slice, as the headers of the others hardly differ.

    Args:
        volume: The image that was read, or one on the finer grid of the map.

    Raises:
        InputError: As for `write_parametric_map`.
    """
    original = read_original(volume)
    first = dataclasses.replace(original, headers=original.headers[:1], places=original.places[:1])
    one = Volume(volume.data[..., :1], volume.affine, source=None)
    nothing = ("0", "99NONE", "none")
    quantity = Quantity(label="NONE", explanation="none", unit=nothing, concept=nothing)
    derivation = Derivation(task="", description="", weights="", weights_sha256="", notice="")
    with refusing(volume.name, _REFUSED):
        _image(one, first, quantity, derivation)


def _image(
    volume: Volume,
    original: Original,
    quantity: Quantity,
    derivation: Derivation,
) -> ParametricMap:
    """Return the map as a data set; raises what highdicom and pydicom raise."""
    from highdicom.pm import ParametricMap
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    series = new_series(original.headers, derivation, finer=original.finer)
    image = ParametricMap(
        source_images=original.headers,
        pixel_array=np.ascontiguousarray(volume.data.transpose(2, 1, 0)),
        series_instance_uid=series.uid,
        series_number=series.number + _NUMBER_OFFSET,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer=SOFTWARE,
        manufacturer_model_name=plain(derivation.weights)[:64] or SOFTWARE,
        software_versions=version(SOFTWARE),
        device_serial_number=derivation.weights_sha256[:16] or version(SOFTWARE),
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[_mapping(volume, quantity)],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_description=plain(quantity.explanation)[:64],
        content_label=_label(quantity.label),
        voi_lut_transformations=[_window(volume)],
        **_geometry(volume, original),
    )
    image.SeriesDescription = plain(f"{quantity.label} ({SOFTWARE} {derivation.task})")[:64]
    image.ImageComments = series.text
    image.Laterality = ""  # required where no body part is named
    return image


def _mapping(volume: Volume, quantity: Quantity) -> RealWorldValueMapping:
    """Say that the stored numbers are the values themselves."""
    from highdicom.pm import RealWorldValueMapping

    return RealWorldValueMapping(
        lut_label=_label(quantity.label),
        lut_explanation=plain(quantity.explanation)[:64],
        unit=_coded(quantity.unit),
        value_range=(float(volume.data.min()), float(volume.data.max())),
        slope=1.0,
        intercept=0.0,
        quantity_definition=_coded(quantity.concept),
    )


def _window(volume: Volume) -> VOILUTTransformation:
    """Show all values of the map."""
    from highdicom import VOILUTTransformation
    from highdicom.enum import VOILUTFunctionValues

    low, high = float(volume.data.min()), float(volume.data.max())
    return VOILUTTransformation(
        window_center=(low + high) / 2,
        window_width=(high - low) or 1.0,
        voi_lut_function=VOILUTFunctionValues.LINEAR_EXACT,
    )


def _geometry(volume: Volume, original: Original) -> dict[str, Any]:
    """Return highdicom's arguments for where each slice lies."""
    from highdicom import PixelMeasuresSequence, PlaneOrientationSequence, PlanePositionSequence

    first, shape = original.places[0], volume.data.shape
    normal = LPS_TO_RAS[:3, :3] @ np.cross(first.row, first.column)
    step = abs(float(normal @ np.asarray(volume.affine)[:3, 2]))
    thickness = original.thickness or step
    return {
        "pixel_measures": PixelMeasuresSequence(
            pixel_spacing=[float(x) for x in finer_spacing(first, shape)],
            slice_thickness=thickness,
            spacing_between_slices=step,
        ),
        "plane_orientation": PlaneOrientationSequence(
            "PATIENT", [*first.row.tolist(), *first.column.tolist()]
        ),
        "plane_positions": [
            PlanePositionSequence("PATIENT", [float(x) for x in finer_position(place, shape)])
            for place in original.places
        ],
    }


def _coded(code: Code) -> CodedConcept:
    from highdicom.sr import CodedConcept

    value, scheme, meaning = code
    return CodedConcept(value=value, scheme_designator=scheme, meaning=meaning)


def _label(text: str) -> str:
    """Return a text as a code string: at most 16 capital letters, digits, blanks, underscores."""
    return re.sub(r"[^A-Z0-9_ ]", "_", text.upper())[:16]
