"""Attention operators and their backends."""

from restore_rwkv.ops.dispatch import available_backends as available_backends
from restore_rwkv.ops.dispatch import bi_wkv as bi_wkv
from restore_rwkv.ops.dispatch import uni_wkv as uni_wkv
