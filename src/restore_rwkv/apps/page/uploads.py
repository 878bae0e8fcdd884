"""Files that were dropped on the page: received within limits, kept until they are forgotten."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from restore_rwkv.apps.page.refusals import ConflictError, MissingError, TooLargeError
from restore_rwkv.apps.page.state import StateFolder
from restore_rwkv.apps.words import safe_name
from restore_rwkv.errors import InputError

_MOST_UPLOADS = 100
_MOST_FILES = 50_000  # of one upload
_IDLE_SECONDS = 3600.0  # after which an upload that was not finished is removed
_BUFFER = 1 << 20
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass
class Upload:
    """Files that were dropped together.

    Attributes:
        id: by which a browser names it.
        folder: where the files lie.
        name: of the folder that was dropped, or of the first file.
        files: their number.
        bytes: their size, with what is being received.
        done: whether all files have come.
        open: number of files that are being received.
        used: when something was last received, on a clock that never goes back.
    """

    id: str
    folder: Path
    name: str
    files: int = 0
    bytes: int = 0
    done: bool = False
    open: int = 0
    used: float = field(default_factory=time.monotonic)

    @property
    def path(self) -> Path:
        """What is to be looked at: the only file, or the folder."""
        inside = list(self.folder.iterdir()) if self.files == 1 else []
        return inside[0] if len(inside) == 1 and inside[0].is_file() else self.folder


class Uploads:
    """All uploads. Any thread may call its methods.

    Args:
        state: folder of the page.
        cap: bytes that one upload may have.
    """

    def __init__(self, state: StateFolder, cap: int) -> None:
        self._state, self._cap = state, cap
        self._lock = threading.Lock()
        self._uploads: dict[str, Upload] = {}
        for row in state.database.rows("SELECT * FROM uploads"):
            folder = state.uploads / Path(row["folder"]).name
            if folder.is_dir():
                self._uploads[row["id"]] = Upload(
                    *(row["id"], folder, row["name"], row["files"], row["bytes"], True)
                )
        known = {upload.folder for upload in self._uploads.values()}
        for folder in state.uploads.iterdir():
            if folder not in known:  # not finished when the last process ended
                shutil.rmtree(folder, ignore_errors=True)

    def all(self) -> list[Upload]:
        """Return the uploads of which all files have come."""
        with self._lock:
            return [upload for upload in self._uploads.values() if upload.done]

    def begin(self, key: str | None, name: str, length: int | None) -> Upload:
        """Make room for one more file, before it is read.

        Args:
            key: id of the upload that it belongs to, which is made where it is not known; None for
                a new one.
            name: of the file, as the browser gives it.
            length: bytes that are announced; None where they are not.

        Raises:
            TooLargeError: the upload exceeds the cap.
            StorageError: the disk has no room.
            ConflictError: the upload is finished, or there are too many.
            InputError: the id is not one.
        """
        if key is not None and not _ID.fullmatch(key):
            raise InputError("upload: its id has other signs than letters, digits, _ and -")
        with self._lock:
            self._drop_idle()
            upload = self._uploads.get(key or "") or self._new(key or secrets.token_hex(8), name)
            if upload.done:
                raise ConflictError(f"{upload.name}: is finished; drop the files again")
            if upload.files + upload.open >= _MOST_FILES:
                raise ConflictError(f"{upload.name}: has {_MOST_FILES} files, which is the most")
            try:
                self._require(upload, length or 0)
            except BaseException:
                if not upload.files + upload.open:
                    self._remove(upload)
                raise
            upload.open += 1
            upload.used = time.monotonic()
        return upload

    def _new(self, key: str, name: str) -> Upload:
        if len(self._uploads) >= _MOST_UPLOADS:
            raise ConflictError(f"{_MOST_UPLOADS} uploads are kept, the most; forget some first")
        folder = self._state.uploads / secrets.token_hex(8)
        folder.mkdir(mode=0o700)
        parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".", "..")]
        self._uploads[key] = Upload(key, folder, (parts or ["file"])[0][:200])
        return self._uploads[key]

    def _require(self, upload: Upload, more: int) -> None:
        if upload.bytes + more > self._cap:
            raise TooLargeError(
                f"{upload.name}: is larger than {self._cap / 1e6:,.0f} MB, the most for an "
                "upload; start the page with the folder of the scan, or with a larger --upload-cap"
            )
        self._state.require_room(more, upload.name)

    async def receive(self, upload: Upload, name: str, chunks: AsyncIterator[bytes]) -> None:
        """Receive a file for which `begin` has made room.

        Raises:
            TooLargeError: more comes than the cap allows; nothing of the file stays.
            StorageError: the disk has no room; likewise.
            OSError: it cannot be written; likewise.
        """
        from starlette.concurrency import run_in_threadpool

        partial = upload.folder / f".{secrets.token_hex(8)}.partial"
        taken = 0
        try:
            with partial.open("xb") as file:
                buffer = bytearray()
                async for chunk in chunks:
                    with self._lock:
                        self._require(upload, len(chunk))
                        upload.bytes += len(chunk)
                        upload.used = time.monotonic()
                    taken += len(chunk)
                    buffer += chunk
                    if len(buffer) >= _BUFFER:
                        await run_in_threadpool(file.write, bytes(buffer))
                        buffer.clear()
                await run_in_threadpool(file.write, bytes(buffer))
            with self._lock:
                os.replace(partial, _free_path(upload.folder, safe_name(name)))
                upload.files += 1
        except BaseException:
            partial.unlink(missing_ok=True)
            with self._lock:
                upload.bytes -= taken
            raise
        finally:
            with self._lock:
                upload.open -= 1

    def finish(self, key: str) -> Upload:
        """Note that all files of an upload have come.

        Raises:
            MissingError: there is no such upload.
            ConflictError: files are still coming, or none has come.
        """
        with self._lock:
            upload = self._known(key)
            if upload.open or not upload.files:
                raise ConflictError(f"{upload.name}: not all files have come; drop it again")
            if not upload.done:
                upload.done = True
                with self._state.database.transaction() as run:
                    values = (upload.id, upload.folder.name, upload.name, upload.files)
                    run("INSERT INTO uploads VALUES (?, ?, ?, ?, ?)", (*values, upload.bytes))
        return upload

    def forget(self, key: str) -> None:
        """Remove an upload with its files; raises MissingError if there is none."""
        with self._lock:
            self._remove(self._known(key))

    def _known(self, key: str) -> Upload:
        if key not in self._uploads:
            raise MissingError("upload: is not there any more; drop it again")
        return self._uploads[key]

    def _drop_idle(self) -> None:
        before = time.monotonic() - _IDLE_SECONDS
        for upload in list(self._uploads.values()):
            if not upload.done and not upload.open and upload.used < before:
                self._remove(upload)

    def _remove(self, upload: Upload) -> None:
        del self._uploads[upload.id]
        with self._state.database.transaction() as run:
            run("DELETE FROM uploads WHERE id = ?", (upload.id,))
        shutil.rmtree(upload.folder, ignore_errors=True)


def _free_path(folder: Path, name: str) -> Path:
    """Return a path for a file that is not there yet: folders that are dropped repeat names."""
    path, number = folder / name, 1
    while path.exists():
        number += 1
        path = folder / str(number) / name
    path.parent.mkdir(mode=0o700, exist_ok=True)
    return path
