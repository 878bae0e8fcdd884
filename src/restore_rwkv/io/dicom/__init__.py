"""DICOM series: their files, the positions of their slices, and the units of their values."""

from restore_rwkv.io.dicom.read import DicomSource, read_dicom

__all__ = ["DicomSource", "read_dicom"]
