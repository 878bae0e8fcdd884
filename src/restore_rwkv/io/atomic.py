"""Outputs that appear complete or not at all, and the claim of one process to each."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from restore_rwkv.errors import BusyError, InputError

_held: set[Path] = set()  # of this process: lock files, unfinished folders, folders made for them
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


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
    with atomic_files(path, overwrite=True) as (temporary,):
        yield temporary


@contextmanager
def atomic_files(*paths: str | Path, overwrite: bool) -> Iterator[tuple[Path, ...]]:
    """Give temporary paths that become ``paths`` together when the block ends without an error.

    As `atomic_file`, for files that belong together, such as an image and its record: all are
    written and flushed before the first is renamed, the last of ``paths`` first, and a rename that
    fails undoes those before it. Between the renames lie some microseconds, in which a kill or a
    power cut leaves the later ones of ``paths`` without the first.

    Args:
        paths: Final names, the main one first. Their folders must exist.
        overwrite: Whether existing files are replaced. Otherwise a file that appears under a final
            name in the meantime is kept, and the block ends in an error.

    Yields:
        The paths to write to, empty files.

    Raises:
        InputError: A final name exists, and ``overwrite`` is false.
        OSError: A folder cannot be written to.
    """
    finals = [Path(path) for path in paths]
    temporaries: list[Path] = []
    try:
        for final in finals:
            temporaries.append(_create_beside(final))
        modes = [stat.S_IMODE(temporary.stat().st_mode) for temporary in temporaries]
        yield tuple(temporaries)
        for temporary, mode in zip(temporaries, modes, strict=True):
            temporary.chmod(mode)  # safetensors replaces it by a private file
            _flush(temporary)
        pairs = list(zip(temporaries, finals, strict=True))
        with _uninterrupted():
            _rename_all(pairs[::-1], overwrite=overwrite)
    except BaseException as error:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno:
            # The error of a full disk names no file, that of a folder that has gone a hidden one.
            final_of = dict(zip(map(str, temporaries), map(str, finals), strict=False))
            if not error.filename or str(error.filename) in final_of:
                error.filename = final_of.get(str(error.filename), str(finals[0]))
        raise
    for folder in {final.parent for final in finals}:
        flush_folder(folder)


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
def atomic_series(folder: str | Path, *files: str | Path) -> Iterator[tuple[Path, ...]]:
    """Give a temporary folder and temporary files that become all names together.

    As `atomic_folder` and `atomic_files`; the files are renamed first.

    Args:
        folder: Final name of the folder.
        files: Final names of the files that come with it, such as its record.

    Yields:
        The paths to write to, the folder first.

    Raises:
        InputError: One of them exists already.
        OSError: They cannot be created or renamed.
    """
    renamed = False
    try:
        with atomic_folder(folder) as temporary:
            with atomic_files(*files, overwrite=False) as others:
                yield temporary, *others
                _flush_all(temporary)  # now, so that little time lies between the renames
            renamed = True
    except BaseException:
        if renamed:
            for file in files:
                Path(file).unlink()
        raise


@contextmanager
def claimed(path: str | Path, *others: str | Path) -> Iterator[None]:
    """Claim an output for this process, so that another one that wants to write it is refused.

    The claim ends with the block, and with the process however it ends. Missing parent folders are
    created, and removed again if nothing came into them. What killed processes have left beside the
    output is removed.

    Args:
        path: Final name of the file or folder.
        others: Final names of files that come with it, such as its record.

    Raises:
        BusyError: Another process writes this output.
        OSError: A folder cannot be created or written to.
    """
    from filelock import FileLock, Timeout

    path = Path(path).absolute()
    names = sorted({path, *(Path(name).absolute() for name in others)})
    parents = {folder for name in names for folder in name.parents}
    created = sorted((folder for folder in parents if not folder.exists()), reverse=True)
    _held.update(created)
    for name in names:
        name.parent.mkdir(parents=True, exist_ok=True)
    try:
        with ExitStack() as locks:
            for name in names:
                lock = FileLock(name.with_name(f".{name.name}.lock"), timeout=0)
                locks.enter_context(lock)
                _held.add(Path(lock.lock_file))
                locks.callback(_unlink, Path(lock.lock_file))
            for name in names:
                for leftover in _leftovers(name):
                    _remove(leftover)
            yield
    except Timeout as error:
        raise BusyError(
            f"{path}: another process is writing it; wait for it, or name another output"
        ) from error
    finally:
        _held.difference_update(created)
        for folder in created:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def drop_claims() -> None:
    """Remove lock files and unfinished folders, for an end at once that runs no cleanup."""
    for path in sorted(_held, reverse=True):  # what a folder holds before the folder
        if path.name.endswith(".partial"):
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_dir():
            with suppress(OSError):  # it is not empty
                path.rmdir()
        else:
            _unlink(path)


def _unlink(path: Path) -> None:
    _held.discard(path)
    with suppress(OSError):  # Windows keeps open files
        path.unlink()


def _create_beside(final: Path) -> Path:
    stem, dot, suffixes = final.name.partition(".")
    temporary = final.with_name(f".{stem}-{secrets.token_hex(4)}.partial{dot}{suffixes}")
    # Not tempfile: its files are private (mode 600) and would remain so under the final name.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return temporary


def _leftovers(path: Path) -> list[Path]:
    """Temporary files and folders of killed processes for an output."""
    stem, dot, suffixes = path.name.partition(".")
    token = "[0-9a-f]" * 8
    file = f".{_quoted(stem)}-{token}.partial{_quoted(dot + suffixes)}"
    folder = f".{_quoted(path.name)}-{token}.partial"
    return [*path.parent.glob(file), *path.parent.glob(folder)]


def _quoted(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _rename_all(pairs: list[tuple[Path, Path]], *, overwrite: bool) -> None:
    """Rename files to their final names, or none of them."""
    undo: list[tuple[Path, Path | None]] = []
    try:
        for temporary, final in pairs:
            last = final == pairs[-1][1]  # after which nothing can fail
            former = _second_name(final) if overwrite and not last else None
            if former is not None:
                undo.append((final, former))
            if overwrite:
                os.replace(temporary, final)
            else:
                _rename_to_new(temporary, final)
            if former is None:
                undo.append((final, None))
    except BaseException:
        for final, former in undo:
            if former is None:
                final.unlink()
            else:
                os.replace(former, final)
        raise
    for _, former in undo:
        if former is not None:
            former.unlink()


def _second_name(path: Path) -> Path | None:
    """Give an existing file a second, hidden name; None where it does not exist."""
    if not path.exists():
        return None
    second = path.with_name(f".{path.name}-{secrets.token_hex(4)}.partial")
    try:
        os.link(path, second)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copy2(path, second)
    return second


def _rename_to_new(temporary: Path, final: Path) -> None:
    """Rename a file; raise InputError if the final name exists."""
    try:
        os.link(temporary, final)  # unlike a rename, it never replaces a file
    except FileExistsError as error:
        raise _appeared(final) from error
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if final.exists():
            raise _appeared(final) from error
        os.replace(temporary, final)
    else:
        temporary.unlink()


def _appeared(final: Path) -> InputError:
    return InputError(f"{final}: exists already; name another output, or give overwrite=True")


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold back signals that would end the process, where the system and the thread allow it."""
    possible = hasattr(signal, "pthread_sigmask")
    if not possible or threading.current_thread() is not threading.main_thread():
        yield
        return
    held = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _renamed_at_the_end(path: Path) -> Iterator[Path]:
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}.partial")
    _held.add(temporary)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        _flush_all(temporary)
        os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        _held.discard(temporary)
    flush_folder(path.parent)


def _flush_all(folder: Path) -> None:
    for here, _, names in os.walk(folder):
        for name in names:
            _flush(Path(here, name))
        flush_folder(Path(here))


def _flush(path: Path) -> None:
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def flush_folder(folder: Path) -> None:
    """Make the new name survive a power cut, on systems where folders can be flushed."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
