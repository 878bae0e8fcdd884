"""Names of a package that are imported when they are first used (PEP 562).

A package lists its public names by module; importing the package then imports none of them, so that
`restore-rwkv --help` does not wait for PyTorch.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def lazy_names(
    package: str, modules: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the functions `__getattr__` and `__dir__` of a package.

    Args:
        package: the package's `__name__`.
        modules: the public names by the module that defines them.

    Returns:
        `__getattr__`, which imports the module of a name and keeps the name in the package, or
        imports the package's own module of that name, and
        `__dir__`, which lists these names beside those that the package has already.

    Example:
        >>> __getattr__, __dir__ = lazy_names("restore_rwkv", {"restore_rwkv.io": ["Volume"]})
        >>> __getattr__("Volume").__name__
        'Volume'
    """
    module_of = {name: module for module, names in modules.items() for name in names}

    def get(name: str) -> Any:
        if name not in module_of:
            if not name.startswith("_") and importlib.util.find_spec(f"{package}.{name}"):
                return importlib.import_module(f"{package}.{name}")
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(module_of[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *module_of})

    return get, names
