"""Images in and out: NIfTI, DICOM series, PNG, TIFF, NPY. Nothing heavy is imported here."""

from restore_rwkv.io.atomic import atomic_file as atomic_file
from restore_rwkv.io.dicom import DicomSource as DicomSource
from restore_rwkv.io.files import check_output as check_output
from restore_rwkv.io.files import check_output_path as check_output_path
from restore_rwkv.io.files import read_volume as read_volume
from restore_rwkv.io.files import write_volume as write_volume
from restore_rwkv.io.nifti import NiftiSource as NiftiSource
from restore_rwkv.io.record import check_record as check_record
from restore_rwkv.io.record import record_of as record_of
from restore_rwkv.io.record import write_record as write_record
from restore_rwkv.io.volume import Source as Source
from restore_rwkv.io.volume import Stored as Stored
from restore_rwkv.io.volume import Volume as Volume
from restore_rwkv.io.volume import acquisition_axis as acquisition_axis
from restore_rwkv.io.volume import plane_axis as plane_axis
from restore_rwkv.io.volume import same_field_of_view as same_field_of_view
