"""DICOM series: which files make one, where its slices lie, and the units of its values."""

from restore_rwkv.io.dicom.read import DicomSource, read_dicom

__all__ = ["DicomSource", "read_dicom"]
