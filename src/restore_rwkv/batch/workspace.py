"""Private temporary folders for files of a store, which are removed whatever happens."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from restore_rwkv.errors import StorageError

_PREFIX = "restore-rwkv-stage-"
_LOCK = ".lock"
_ROOM = 1.1  # times the size of what is fetched


@contextmanager
def workspace() -> Iterator[Path]:
    """Give a private temporary folder, which is removed with the block.

    Those that killed processes have left on this machine are removed too.
    """
    _remove_left()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))  # mode 700
    try:
        with FileLock(folder / _LOCK):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_left() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        lock = folder / _LOCK
        # A folder without a lock is one that another process is just making. In one of somebody
        # else, who may write here too, the lock may be a link to any file of ours.
        if not (_is_ours(folder) and os.access(lock, os.W_OK)):
            continue
        with suppress(Timeout, OSError), FileLock(lock, timeout=0):
            shutil.rmtree(folder, ignore_errors=True)


def _is_ours(folder: Path) -> bool:
    with suppress(OSError):
        found = folder.lstat()
        mine = not hasattr(os, "getuid") or found.st_uid == os.getuid()
        return mine and stat.S_ISDIR(found.st_mode)
    return False


def require_room(folder: Path, size: int, name: str) -> None:
    """Check that a disk has room for files of a size in bytes; raises StorageError."""
    free = shutil.disk_usage(folder).free
    if size * _ROOM > free:
        raise StorageError(
            f"{name}: needs {size / 1e6:,.3g} MB in {tempfile.gettempdir()}, which has "
            f"{free / 1e6:,.3g} MB free; free some, or set TMPDIR to a folder on a larger disk"
        )
