"""Reading and writing of images: NIfTI, NRRD, MetaImage, MGH, DICOM, PNG, TIFF, NPY; their records.

Uses only errors, and no torch; tasks, physics and all rooms above use it.
"""

from restore_rwkv.io.affines import (
    acquisition_axis,
    affine_of_axes,
    plane_axis,
    same_field_of_view,
)
from restore_rwkv.io.atomic import atomic_file, atomic_files, atomic_folder, claimed
from restore_rwkv.io.conversions import as_volume
from restore_rwkv.io.dicom import Derivation, DicomSource
from restore_rwkv.io.files import (
    Volumes,
    check_output,
    check_output_path,
    encode_volumes,
    read_volume,
    read_volumes,
    write_volume,
    write_volumes,
)
from restore_rwkv.io.findings import Finding
from restore_rwkv.io.nifti import NiftiSource
from restore_rwkv.io.progress import PartProgress, Progress, begin_stage, part_of
from restore_rwkv.io.record import (
    ChangeRecord,
    DegradationRecord,
    FitRecord,
    OutputRecord,
    RestorationRecord,
    SourceRecord,
    VolumeRecord,
    check_record,
    degraded_by,
    file_sha256,
    identify,
    identify_output,
    record_of,
    record_of_series,
    record_text,
    record_values,
)
from restore_rwkv.io.results import OutputFormat, OutputOptions, Target
from restore_rwkv.io.scans import FoundScan, find_scans
from restore_rwkv.io.stored import Stored
from restore_rwkv.io.volume import Source, Volume
from restore_rwkv.io.warned import recorded_warnings

__all__ = [
    "ChangeRecord",
    "DegradationRecord",
    "Derivation",
    "DicomSource",
    "Finding",
    "FitRecord",
    "FoundScan",
    "NiftiSource",
    "OutputFormat",
    "OutputOptions",
    "OutputRecord",
    "PartProgress",
    "Progress",
    "RestorationRecord",
    "Source",
    "SourceRecord",
    "Stored",
    "Target",
    "Volume",
    "VolumeRecord",
    "Volumes",
    "acquisition_axis",
    "affine_of_axes",
    "as_volume",
    "atomic_file",
    "atomic_files",
    "atomic_folder",
    "begin_stage",
    "check_output",
    "check_output_path",
    "check_record",
    "claimed",
    "degraded_by",
    "encode_volumes",
    "file_sha256",
    "find_scans",
    "identify",
    "identify_output",
    "part_of",
    "plane_axis",
    "read_volume",
    "read_volumes",
    "record_of",
    "record_of_series",
    "record_text",
    "record_values",
    "recorded_warnings",
    "same_field_of_view",
    "write_volume",
    "write_volumes",
]
