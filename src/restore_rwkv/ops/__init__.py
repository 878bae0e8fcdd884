"""The attention operators, Bi-WKV and Uni-WKV: a reference, and backends for CPUs and GPUs.

Imports only `errors`; the model and all rooms above import it. Each name is imported on first use:
`available_backends` and `devices` need no PyTorch.
"""

from typing import TYPE_CHECKING

from restore_rwkv.lazy import lazy_names

if TYPE_CHECKING:
    from restore_rwkv.ops.dispatch import bi_wkv, uni_wkv
    from restore_rwkv.ops.machine import available_backends, devices

__all__ = ["available_backends", "bi_wkv", "devices", "uni_wkv"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "restore_rwkv.ops.dispatch": ["bi_wkv", "uni_wkv"],
        "restore_rwkv.ops.machine": ["available_backends", "devices"],
    },
)
