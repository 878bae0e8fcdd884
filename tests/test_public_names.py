from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from importlib.metadata import version

import pytest

import restore_rwkv
from restore_rwkv.lazy import lazy_names

PACKAGES = [
    "restore_rwkv",
    *(
        module.name
        for module in pkgutil.walk_packages(restore_rwkv.__path__, "restore_rwkv.")
        if module.ispkg
    ),
]
ROOT_NAMES = {
    *("restore", "Restorer", "Restored", "RestoreOptions", "degrade", "DegradeOptions"),
    *("evaluate", "train", "Recipe", "__version__"),
    *("Volume", "read_volume", "write_volume", "RestoreRWKV", "RestoreRWKVConfig", "PRESETS"),
    *("TASKS", "RestoreError", "load_weights", "save_weights", "load_published"),
}


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_exists_and_is_listed(name: str) -> None:
    package = importlib.import_module(name)
    for public in getattr(package, "__all__", ()):
        importable = hasattr(package, public) or importlib.import_module(f"{name}.{public}")
        assert importable, public
        assert public in dir(package)


def test_the_root_has_the_names_of_the_manual() -> None:
    assert set(restore_rwkv.__all__) == ROOT_NAMES
    assert set(dir(restore_rwkv)) >= ROOT_NAMES


def test_the_version_is_that_of_the_installed_package() -> None:
    assert restore_rwkv.__version__ == version("restore-rwkv")


def test_a_name_that_is_unknown_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'restore_rwkv' has no attribute 'restor'"):
        restore_rwkv.restor  # noqa: B018
    assert not hasattr(restore_rwkv, "restor")


def test_the_names_are_imported_at_their_first_use() -> None:
    code = (
        "import sys, restore_rwkv, restore_rwkv.model, restore_rwkv.ops, restore_rwkv.tasks\n"
        "print([x for x in ('torch', 'numpy', 'pydantic') if x in sys.modules])\n"
        "from restore_rwkv import *\n"
        "print(sorted(set(restore_rwkv.__all__) - set(globals())), 'torch' in sys.modules)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert result.stdout.splitlines() == ["[]", "[] True"]


def test_a_name_is_kept_once_it_is_used() -> None:
    get, names = lazy_names("restore_rwkv.lazy", {"restore_rwkv.errors": ["InputError"]})
    assert "InputError" in names()
    lazy = importlib.import_module("restore_rwkv.lazy")
    try:
        assert get("InputError") is lazy.InputError
    finally:
        del lazy.InputError


def test_rooms_are_attributes_of_the_package() -> None:
    code = "import restore_rwkv as r; r.errors.InputError, r.io.Volume, r.tasks.TASKS, r.ops.bi_wkv"
    subprocess.run([sys.executable, "-c", code], check=True)
