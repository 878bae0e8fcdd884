"""The attention operators, Bi-WKV and Uni-WKV: a reference, and backends for CPUs and GPUs.

Uses `errors` and PyTorch only. Used by the model, and by any room above that asks for a backend.
"""

from restore_rwkv.ops.dispatch import available_backends, bi_wkv, uni_wkv

__all__ = ["available_backends", "bi_wkv", "uni_wkv"]
