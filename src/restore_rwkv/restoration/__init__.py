"""From a scan to the restored scan: the plan, the tiles, and the restorer that runs both.

Uses model, tasks and io; evaluation, training and apps use it.
"""

from restore_rwkv.restoration.plan import Settings
from restore_rwkv.restoration.restorer import Restorer, find_device, restore

__all__ = ["Restorer", "Settings", "find_device", "restore"]
