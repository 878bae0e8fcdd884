"""Medical image restoration with Restore-RWKV. For research only; not a medical device.

Each name is imported when it is first used: importing the package does not import PyTorch.
"""

from typing import TYPE_CHECKING

from restore_rwkv.lazy import lazy_names

if TYPE_CHECKING:
    from restore_rwkv.errors import RestoreError
    from restore_rwkv.evaluation import evaluate
    from restore_rwkv.io import Volume, read_volume, write_volume
    from restore_rwkv.model import (
        PRESETS,
        RestoreRWKV,
        RestoreRWKVConfig,
        load_published,
        load_weights,
        save_weights,
    )
    from restore_rwkv.restoration import Restored, RestoreOptions, Restorer, restore
    from restore_rwkv.tasks import TASKS, DegradeOptions, degrade
    from restore_rwkv.training import Recipe, train

__all__ = [
    "PRESETS",
    "TASKS",
    "DegradeOptions",
    "Recipe",
    "RestoreError",
    "RestoreOptions",
    "RestoreRWKV",
    "RestoreRWKVConfig",
    "Restored",
    "Restorer",
    "Volume",
    "degrade",
    "evaluate",
    "load_published",
    "load_weights",
    "read_volume",
    "restore",
    "save_weights",
    "train",
    "write_volume",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "restore_rwkv.errors": ["RestoreError"],
        "restore_rwkv.evaluation": ["evaluate"],
        "restore_rwkv.io": ["Volume", "read_volume", "write_volume"],
        "restore_rwkv.model": [
            "PRESETS",
            "RestoreRWKV",
            "RestoreRWKVConfig",
            "load_published",
            "load_weights",
            "save_weights",
        ],
        "restore_rwkv.restoration": ["RestoreOptions", "Restored", "Restorer", "restore"],
        "restore_rwkv.tasks": ["TASKS", "DegradeOptions", "degrade"],
        "restore_rwkv.training": ["Recipe", "train"],
    },
)
