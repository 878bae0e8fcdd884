"""Data sets: every source is converted to one on-disk form, the prepared set.

Uses model (the stride), tasks and io; evaluation and training read the sets, apps prepare them.
"""

from restore_rwkv.data.prepared import PreparedSet, find_sets
from restore_rwkv.data.slice import Slice, slices_of
from restore_rwkv.data.stack import SPLITS, Split, Stack
from restore_rwkv.data.writer import SetWriter

__all__ = [
    "SPLITS",
    "PreparedSet",
    "SetWriter",
    "Slice",
    "Split",
    "Stack",
    "find_sets",
    "slices_of",
]
