"""Data sets: any source becomes one on-disk form, which training and evaluation read."""

from restore_rwkv.data.manifest import PreparedSet as PreparedSet
from restore_rwkv.data.manifest import Split as Split
from restore_rwkv.data.manifest import Stack as Stack
from restore_rwkv.data.manifest import find_sets as find_sets
from restore_rwkv.data.writer import SetWriter as SetWriter
