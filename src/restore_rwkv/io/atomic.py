"""Files and folders that appear complete or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from restore_rwkv.errors import InputError


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    r"""Give a temporary path that becomes ``path`` when the block ends without an error.

    The temporary file is in the same folder and has the same suffixes, so that writers which choose
    a format by name choose the same one. It is flushed to the disk and then renamed, which replaces
    an existing file in one step. After an error it is removed; a killed process can leave it
    behind, but never an incomplete file under the final name.

    Args:
        path: Final name of the file. Its folder must exist.

    Yields:
        The path to write to, an empty file.

    Raises:
        OSError: The folder cannot be written to.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with atomic_file(folder / "figures.csv") as temporary:
        ...     _ = temporary.write_text("psnr\n")
        >>> [file.name for file in folder.iterdir()]
        ['figures.csv']
    """
    path = Path(path)
    stem, dot, suffixes = path.name.partition(".")
    temporary = path.with_name(f".{stem}-{secrets.token_hex(4)}.partial{dot}{suffixes}")
    # Not tempfile: its files are private (mode 600) and would remain so under the final name.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    mode = stat.S_IMODE(temporary.stat().st_mode)
    try:
        yield temporary
        temporary.chmod(mode)  # safetensors replaces it by a private file
        _flush(temporary)
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and not error.filename:
            error.filename = str(path)  # the error of a full disk names no file
        raise
    _flush_folder(path.parent)


def atomic_folder(path: str | Path) -> AbstractContextManager[Path]:
    r"""Give a temporary folder that becomes ``path`` when the block ends without an error.

    The temporary folder is hidden and beside ``path``. Its files are flushed to the disk and
    the folder is then renamed in one step. After an error it is removed; a killed process can leave
    it behind (its name ends in ``.partial``), but never an incomplete folder under the final name.

    Args:
        path: Final name of the folder. Missing parents are created when the block is entered.

    Returns:
        A context manager that yields the folder to write to, which is empty.

    Raises:
        InputError: ``path`` exists already. Raised by the call, so that callers can refuse before
            they start any work.
        OSError: The folder cannot be created or renamed; raised inside the block.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with atomic_folder(folder / "scans") as temporary:
        ...     _ = (temporary / "a.txt").write_text("a\n")
        >>> [file.name for file in (folder / "scans").iterdir()]
        ['a.txt']
    """
    if Path(path).exists():
        raise InputError(f"{path}: exists already; name another folder, or remove it first")
    return _renamed_at_the_end(Path(path).absolute())


@contextmanager
def _renamed_at_the_end(path: Path) -> Iterator[Path]:
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}.partial")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for folder, _, names in os.walk(temporary):
            for name in names:
                _flush(Path(folder, name))
            _flush_folder(Path(folder))
        os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _flush_folder(path.parent)


def _flush(path: Path) -> None:
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def _flush_folder(folder: Path) -> None:
    """Make the new name survive a power cut, on systems where folders can be flushed."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
