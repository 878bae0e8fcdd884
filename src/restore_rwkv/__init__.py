"""Medical image restoration with Restore-RWKV. For research only; not a medical device.

Each name is imported when it is first used: importing the package does not import PyTorch.
"""

from typing import TYPE_CHECKING, Any

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

    __version__: str

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
    "__version__",
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

_name, _names = lazy_names(
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


def __getattr__(name: str) -> Any:
    """Import a name at its first use; the version is read from the installed package."""
    if name == "__version__":
        from importlib.metadata import version

        globals()[name] = version("restore-rwkv")
        return globals()[name]
    return _name(name)


def __dir__() -> list[str]:
    """List the names that are imported at their first use beside the others."""
    return sorted({*_names(), "__version__"})
