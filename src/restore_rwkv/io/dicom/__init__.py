"""DICOM series: their files, the positions of their slices, and the units of their values."""

from restore_rwkv.io.dicom.read import DicomSource, read_dicom
from restore_rwkv.io.dicom.series import FoundSeries, find_series

__all__ = ["DicomSource", "FoundSeries", "find_series", "read_dicom"]
