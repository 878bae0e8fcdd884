"""Sources of prepared sets: your own folders, IXI, AAPM, the authors' release.

Uses the writer of sets; the command line uses it. To add a source, add one file here.
"""

from restore_rwkv.data.sources.aapm import prepare_aapm
from restore_rwkv.data.sources.folder import FolderOptions, prepare_folder
from restore_rwkv.data.sources.ixi import prepare_ixi
from restore_rwkv.data.sources.jobs import Preparation, check_sets
from restore_rwkv.data.sources.release import prepare_release

__all__ = [
    "FolderOptions",
    "Preparation",
    "check_sets",
    "prepare_aapm",
    "prepare_folder",
    "prepare_ixi",
    "prepare_release",
]
