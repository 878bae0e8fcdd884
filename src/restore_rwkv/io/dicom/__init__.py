"""DICOM series: their files, positions of slices and units of values; series derived from them."""

from restore_rwkv.io.dicom.derived import Derivation
from restore_rwkv.io.dicom.maps import Quantity, write_parametric_map
from restore_rwkv.io.dicom.read import DicomSource, read_dicom
from restore_rwkv.io.dicom.series import FoundSeries, find_series
from restore_rwkv.io.dicom.write import WrittenSeries, check_dicom_output, write_dicom

__all__ = [
    "Derivation",
    "DicomSource",
    "FoundSeries",
    "Quantity",
    "WrittenSeries",
    "check_dicom_output",
    "find_series",
    "read_dicom",
    "write_dicom",
    "write_parametric_map",
]
