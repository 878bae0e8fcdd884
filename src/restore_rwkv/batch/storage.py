"""Files that have a URL: object stores and whatever else fsspec reaches.

Endpoints and credentials come from the configuration of fsspec and of the store's own library
(`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, `FSSPEC_S3_...`, files in the home folder); nothing of
them is taken as an argument or shown in a message.
"""

from __future__ import annotations

import base64
import datetime
import errno
import functools
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from restore_rwkv.errors import ConfigError, InputError, RestoreError, StorageError
from restore_rwkv.io.kinds import suffix_of

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_OF_PAIRS = {
    ".hdr": (".img", ".img.gz"),
    ".hdr.gz": (".img.gz", ".img"),
    ".img": (".hdr", ".hdr.gz"),
    ".img.gz": (".hdr.gz", ".hdr"),
}
_MD5 = re.compile(r'"?([0-9a-f]{32})"?')
_TIMES = ("LastModified", "mtime", "last_modified", "updated", "created")
_LONGEST_NAME = 255  # bytes of one part of a path, on the disks that are in use
_AT_ONCE = 256  # beginnings of files in memory


@dataclass(frozen=True)
class StoredFile:
    """A file in a store.

    Attributes:
        url: of it.
        size: in bytes.
        version: changes whenever the file does.
        modified: time in ns since 1970; 0 where the store does not say.
        md5: digest of its content, hex; None where the store does not say.
    """

    url: str
    size: int
    version: str
    modified: int = 0
    md5: str | None = None


def is_url(place: str) -> bool:
    """Whether a place is a URL and not a path; see `plain` for those of this machine."""
    return bool(_URL.match(place))


def plain(place: str) -> str:
    """Return the path that a `file://` URL stands for; other URLs and paths as they are."""
    if not place.lower().startswith("file://"):
        return place
    return unquote(urlsplit(place).path)


def joined(url: str, name: str) -> str:
    """Return the URL of a name below another URL."""
    return f"{url.rstrip('/')}/{name}"


def parent(url: str) -> str:
    """Return the URL of the folder that something lies in; of the root of a store, that itself."""
    base = url.rstrip("/")
    root = _URL.match(base)
    start = root.end() if root else 0
    return base[: base.rindex("/")] if "/" in base[start:] else base


def name_of(url: str) -> str:
    """Return the last part of a URL."""
    return _URL.sub("", url).rstrip("/").rpartition("/")[2]


def pair_of(name: str) -> tuple[str, ...]:
    """Return the names that the other file of a pair of header and voxels may have."""
    suffix = suffix_of(name)
    stem = name[: len(name) - len(suffix)]
    return tuple(f"{stem}{other}" for other in _OF_PAIRS.get(suffix, ()))


def check_name(name: str, url: str) -> None:
    """Check that a name in a store, with "/" between its parts, can be that of a file on a disk.

    Raises:
        InputError: it would lead out of its folder, or no disk has such names.
    """
    for part in name.split("/"):
        odd = part in ("", ".", "..") or "\0" in part or (os.name == "nt" and "\\" in part)
        if odd or len(part.encode("utf-8", "surrogateescape")) > _LONGEST_NAME:
            raise InputError(f"{url}: has a name that no file can have; rename it in the store")


def store_of(url: str) -> Store:
    """Return the store that a URL is in.

    Raises:
        ConfigError: the URL holds a password, or nothing that is installed reads such URLs.
    """
    location = urlsplit(url)
    if location.password is not None:
        raise ConfigError(
            f"{location.scheme}: the URL holds a password, which records and tables would show; "
            "put it into the configuration of fsspec"
        )
    return _store(f"{location.scheme}://{location.netloc}", os.getpid())


@functools.lru_cache(maxsize=16)
def _store(root: str, _: int) -> Store:  # not taken over by a process that was forked
    return Store(root)


class Store:
    """A store of files; may be used by several threads.

    Every method raises InputError where a file is not there, and StorageError where the store
    cannot be used: it cannot be reached, has no such bucket, or denies access.

    Args:
        root: URL with which those of its files begin.

    Raises:
        ConfigError: nothing that is installed reads such URLs.
    """

    def __init__(self, root: str) -> None:
        try:
            from fsspec.core import url_to_fs

            # Listings are not kept: other machines write into the store.
            self._files, _ = url_to_fs(root, use_listings_cache=False)
        except ImportError as error:
            raise ConfigError(
                f"{root}: {error.name or 'fsspec'} is missing, which reads such URLs; "
                "pip install 'restore-rwkv[ray]', or the package of fsspec for this kind of store"
            ) from error
        except ValueError as error:
            raise ConfigError(
                f"{root}: unknown kind of URL; give s3://BUCKET/..., or a path"
            ) from (error)

    def look(self, url: str) -> StoredFile | None:
        """Return a file as it is now; None where there is none."""
        try:
            with _errors(url):
                info = self._files.info(self._path(url))
        except InputError:
            return None
        return _stored(url, info) if info["type"] == "file" else None

    def list(self, url: str) -> tuple[list[StoredFile], list[str]]:
        """Return the files and the names of the folders directly in a folder, sorted by names."""
        with _errors(url):
            try:
                infos = self._files.ls(self._path(url), detail=True)
            except FileNotFoundError as error:
                if _lacks_bucket(error):
                    raise
                infos = []  # stores have no empty folders
        files, folders = [], []
        start = len(self._path(url).rstrip("/")) + 1
        for info in sorted(infos, key=lambda info: str(info["name"])):
            name = str(info["name"])[start:]
            if info["type"] == "directory":
                folders.append(name)
            elif name and not name.endswith("/"):  # as some programs mark folders
                files.append(_stored(joined(url, name), info))
        return files, folders

    def fetch(self, files: Sequence[StoredFile], paths: Sequence[Path]) -> None:
        """Fetch files; missing folders are made.

        Raises:
            InputError: a file is not there, or has another size than it had.
            OSError: the disk is full.
        """
        if not files:
            return
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
        with _errors(files[0].url):
            self._files.get([self._path(file.url) for file in files], [str(path) for path in paths])
        for file, path in zip(files, paths, strict=True):
            if not path.is_file() or path.stat().st_size != file.size:
                raise InputError(changed(file.url))

    def fetch_beginnings(
        self, files: Sequence[StoredFile], paths: Sequence[Path], size: int
    ) -> None:
        """Fetch the first `size` bytes of files, or all where they are shorter; none is empty."""
        for first in range(0, len(files), _AT_ONCE):
            some = files[first : first + _AT_ONCE]
            with _errors(some[0].url):
                names = [self._path(file.url) for file in some]
                ends = [min(size, file.size) for file in some]
                parts = self._files.cat_ranges(names, [0] * len(some), ends, on_error="raise")
            for path, part in zip(paths[first : first + _AT_ONCE], parts, strict=True):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(part)

    def put(self, paths: Sequence[Path], urls: Sequence[str]) -> None:
        """Write files into the store, over what is there; see `holds`."""
        with _errors(urls[0]):
            self._files.put([str(path) for path in paths], [self._path(url) for url in urls])

    def write(self, url: str, content: bytes) -> None:
        """Write a small file."""
        with _errors(url):
            self._files.pipe_file(self._path(url), content)

    def read(self, url: str) -> bytes:
        """Return the content of a small file."""
        with _errors(url):
            content: bytes = self._files.cat_file(self._path(url))
        return content

    def remove(self, urls: Sequence[str]) -> None:
        """Remove files."""
        for url in urls:
            with _errors(url):
                self._files.rm_file(self._path(url))

    def _path(self, url: str) -> str:
        path: str = self._files._strip_protocol(url)
        return path


def holds(file: StoredFile, path: Path, store: Store) -> bool:
    """Whether a file in a store is the same as one on the disk.

    Sizes are compared, and digests where the store gives one. What it calls a digest is none where
    it encrypts with keys of its own, so the file is read where that differs.
    """
    if file.size != path.stat().st_size:
        return False
    if file.md5 is None or file.md5 == _digest(path):
        return True
    return (
        hashlib.sha256(store.read(file.url)).digest() == hashlib.sha256(path.read_bytes()).digest()
    )


def exists(place: str) -> bool:
    """Whether there is a file or a folder at a path or URL; errors as `Store`."""
    place = plain(place)
    if not is_url(place):
        return os.path.exists(place)
    store = store_of(place)
    return store.look(place) is not None or any(store.list(place))


def changed(url: str) -> str:
    """Message for a file that changes while it is read."""
    return f"{url}: has changed while it was read; try again once nothing writes it"


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        digest = hashlib.md5(usedforsecurity=False)
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _stored(url: str, info: Mapping[str, Any]) -> StoredFile:
    size = int(info["size"] or 0)
    modified = _nanoseconds(next((info[key] for key in _TIMES if info.get(key)), 0))
    tag = str(info.get("ETag") or info.get("etag") or info.get("generation") or "")
    return StoredFile(url, size, f"{size} {tag or modified}", modified, _md5(info))


def _md5(info: Mapping[str, Any]) -> str | None:
    """Digest that a store gives: S3 where a file came in one part, Google, Azure."""
    match = _MD5.fullmatch(str(info.get("ETag") or ""))
    if match:
        return match[1]
    given = info.get("md5Hash") or info.get("content_md5")
    if isinstance(given, str):
        given = base64.b64decode(given)
    return bytes(given).hex() if given else None


def _nanoseconds(time: Any) -> int:
    if isinstance(time, str):
        try:
            time = datetime.datetime.fromisoformat(time.replace("Z", "+00:00"))
        except ValueError:
            return 0
    if isinstance(time, datetime.datetime):
        time = time.timestamp()
    return int(float(time) * 1e9)


def _lacks_bucket(error: BaseException) -> bool:
    return _code(error) == "NoSuchBucket" or "bucket does not exist" in str(error)


@contextmanager
def _errors(url: str) -> Iterator[None]:
    """Turn what fsspec and the libraries below it raise into one line without credentials."""
    try:
        yield
    except RestoreError:
        raise
    except FileNotFoundError as error:
        if _lacks_bucket(error):
            raise StorageError(
                f"{url}: there is no such bucket; create it, or check the URL"
            ) from (error)
        raise InputError(f"{url}: no such object; check the URL") from error
    except PermissionError as error:
        raise StorageError(
            f"{url}: access is denied; check the credentials, and what they allow"
        ) from error
    except Exception as error:
        local = isinstance(error, OSError) and error.filename and os.path.isabs(str(error.filename))
        # A full disk here is no fault of the store, and what Python itself raises is a bug.
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        bug = type(error).__module__ == "builtins" and not isinstance(error, OSError)
        if local or full or bug:
            raise
        raise StorageError(
            f"{url}: the store cannot be used ({type(error).__name__}{_said(error)}); check its "
            "address, the network and the credentials"
        ) from error


def _said(error: BaseException) -> str:
    """Code that a store itself has given; libraries may put secrets into their messages."""
    code = _code(error)
    return f", {code}" if re.fullmatch(r"\w{1,60}", code) else ""


def _code(error: BaseException) -> str:
    response = getattr(error.__cause__ or error, "response", None)
    known = response.get("Error", {}) if isinstance(response, Mapping) else {}
    return str(known.get("Code", ""))
