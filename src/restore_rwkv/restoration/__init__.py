"""From a scan to the restored scan: the plan, the tiles, and the restorer that runs both.

Uses model, tasks, physics, io and ops; evaluation, training and apps use it.
"""

from restore_rwkv.restoration.check import Checked, Checker
from restore_rwkv.restoration.device import find_device
from restore_rwkv.restoration.file import FileRequest, restore_file
from restore_rwkv.restoration.fit import Fit, judge
from restore_rwkv.restoration.options import RestoreOptions
from restore_rwkv.restoration.plan import Plan
from restore_rwkv.restoration.planning import make_plan
from restore_rwkv.restoration.preview import Preview
from restore_rwkv.restoration.recording import Restored
from restore_rwkv.restoration.restorer import Restorer, restore
from restore_rwkv.restoration.slices import NETWORK_ONLY, Refinement, restore_slices
from restore_rwkv.restoration.tiles import Tiling, choose_tiling
from restore_rwkv.restoration.uncertainty import Spread, find_spread, interval_map

__all__ = [
    "NETWORK_ONLY",
    "Checked",
    "Checker",
    "FileRequest",
    "Fit",
    "Plan",
    "Preview",
    "Refinement",
    "RestoreOptions",
    "Restored",
    "Restorer",
    "Spread",
    "Tiling",
    "choose_tiling",
    "find_device",
    "find_spread",
    "interval_map",
    "judge",
    "make_plan",
    "restore",
    "restore_file",
    "restore_slices",
]
