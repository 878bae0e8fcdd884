"""The network, its configuration, and its weight files."""

from restore_rwkv.model.checkpoint import WeightsInfo as WeightsInfo
from restore_rwkv.model.checkpoint import load_weights as load_weights
from restore_rwkv.model.checkpoint import read_info as read_info
from restore_rwkv.model.checkpoint import save_weights as save_weights
from restore_rwkv.model.published import config_from_published as config_from_published
from restore_rwkv.model.published import convert_published as convert_published
from restore_rwkv.model.published import load_published as load_published
from restore_rwkv.model.published import network_from_published as network_from_published
from restore_rwkv.model.published import read_published as read_published
from restore_rwkv.model.restore_rwkv import PRESETS as PRESETS
from restore_rwkv.model.restore_rwkv import RestoreRWKV as RestoreRWKV
from restore_rwkv.model.restore_rwkv import RestoreRWKVConfig as RestoreRWKVConfig
