"""Medical image restoration with Restore-RWKV. For research only; not a medical device."""

from restore_rwkv.errors import RestoreError as RestoreError
from restore_rwkv.io import Volume as Volume
from restore_rwkv.io import read_volume as read_volume
from restore_rwkv.io import write_volume as write_volume
from restore_rwkv.model import PRESETS as PRESETS
from restore_rwkv.model import RestoreRWKV as RestoreRWKV
from restore_rwkv.model import RestoreRWKVConfig as RestoreRWKVConfig
from restore_rwkv.model import load_published as load_published
from restore_rwkv.model import load_weights as load_weights
from restore_rwkv.model import save_weights as save_weights
from restore_rwkv.restoration import RestoreOptions as RestoreOptions
from restore_rwkv.restoration import Restorer as Restorer
from restore_rwkv.restoration import restore as restore
from restore_rwkv.tasks import TASKS as TASKS
from restore_rwkv.tasks import DegradeOptions as DegradeOptions
from restore_rwkv.tasks import degrade as degrade
