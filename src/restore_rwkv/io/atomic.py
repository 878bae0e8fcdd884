"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    r"""Give a temporary path that becomes ``path`` when the block ends without an error.

    The temporary file lies in the same folder and ends in the same suffixes, so that writers
    which choose a format by name choose the same one. It is flushed to the disk and then renamed,
    which replaces an existing file in one step. After an error it is removed; a killed process can
    leave it behind, but never a half file under the final name.

    Args:
        path: Final name of the file. Its folder must exist.

    Yields:
        The name to write to; an empty file stands there already.

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
    # Not tempfile: its files are private (mode 600) and would stay so under the final name.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    mode = stat.S_IMODE(temporary.stat().st_mode)
    try:
        yield temporary
        temporary.chmod(mode)  # safetensors puts a private file in its place
        _flush(temporary)
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and not error.filename:
            error.filename = str(path)  # a full disk names no file
        raise
    _flush_folder(path.parent)


def _flush(path: Path) -> None:
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def _flush_folder(folder: Path) -> None:
    """Make the new name itself survive a power cut, where folders can be flushed."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
