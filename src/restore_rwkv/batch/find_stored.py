"""Every scan below a URL: volumes by their names, DICOM by its headers, folder by folder."""

from __future__ import annotations

import dataclasses
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from restore_rwkv.batch.naming import Scan
from restore_rwkv.batch.storage import (
    Store,
    StoredFile,
    check_name,
    joined,
    name_of,
    pair_of,
    parent,
    store_of,
)
from restore_rwkv.batch.workspace import require_room, workspace
from restore_rwkv.errors import InputError
from restore_rwkv.io import FoundScan, find_scans
from restore_rwkv.io.dicom.files import is_dicom
from restore_rwkv.io.kinds import holds_volume, suffix_of

_BEGINNING = 1 << 16  # bytes; headers of single slices have 2000 to 20000
_TOGETHER = 1000  # files whose beginnings are on the disk at a time
_PIXELS = {b"\xe0\x7f\x10\0", b"\xe0\x7f\x08\0", b"\xe0\x7f\x09\0", b"\x7f\xe0\0\x10"}
_WITHOUT_SCANS = (".json", ".txt", ".csv", ".tsv", ".html", ".xml", ".bval", ".bvec", ".md")
_ZIP = (".zip",)


@dataclass
class _Series:
    """What is known of a DICOM series: files in one folder or in several.

    Attributes:
        number: SeriesNumber.
        files: in the store.
    """

    number: str
    files: list[StoredFile] = field(default_factory=list)


def stored_scans(root: str, prefix: PurePosixPath, output: str) -> Iterator[Scan]:
    """Find every DICOM series and every volume below a URL, as on a disk.

    Nothing but headers is fetched: the beginning of each file that is neither an image by its name
    nor of a kind that holds none, and the whole of those whose header is longer; some of one
    folder at a time, into a private temporary folder. Of zip archives all is fetched, of one at a
    time. A header whose voxels are in another file stands for both.

    Args:
        root: folder, or one file.
        prefix: folder of its outputs below that of all.
        output: path or URL whose files are not looked at.

    Yields:
        DICOM series, then volumes by their names.

    Raises:
        InputError: there is nothing at the URL.
        StorageError: the store cannot be used, or the disk has no room for the headers of a folder.
        ConfigError: as `store_of`.
    """
    search = _Search(store_of(root), root, prefix, output)
    one = search.store.look(root)
    if one is not None:
        search.root = parent(root)
        search.look_at([one], root_is_file=True)
    else:
        search.below("")
    if not search.seen:
        raise InputError(f"{root}: there is nothing at this URL; check it")
    yield from search.scans()


class _Search:
    """What has been found below a URL."""

    def __init__(self, store: Store, root: str, prefix: PurePosixPath, output: str) -> None:
        self.store, self.root = store, root
        self.seen = 0
        self._prefix, self._output = prefix, output
        self._series: defaultdict[str, _Series] = defaultdict(lambda: _Series(""))
        self._archived: list[Scan] = []
        self._damaged: list[Scan] = []
        self._volumes: list[Scan] = []

    def below(self, folder: str) -> None:
        """Look at a folder of the tree and at those in it, one after the other."""
        waiting = [folder]
        while waiting:
            here = waiting.pop()
            url = joined(self.root, here) if here else self.root
            if url == self._output.rstrip("/"):
                continue
            files, folders = self.store.list(url)
            self.look_at([file for file in files if not _is_hidden(name_of(file.url))])
            for name in reversed(folders):
                below = f"{here}/{name}" if here else name
                if self._has_name(name, joined(self.root, below)) and not _is_hidden(name):
                    waiting.append(below)

    def look_at(self, files: Sequence[StoredFile], *, root_is_file: bool = False) -> None:
        """Note the scans of the files of one folder."""
        self.seen += len(files)
        headers: list[StoredFile] = []
        for file in files:
            name = name_of(file.url)
            suffix = suffix_of(name)
            if not self._has_name(name, file.url):
                continue
            if holds_volume(name):
                self._volumes.append(self._volume(file, files))
            elif suffix in _ZIP and not root_is_file:
                self._look_into_archive(file)
            elif root_is_file or (
                file.size and suffix not in _WITHOUT_SCANS and not suffix.startswith(".img")
            ):
                headers.append(file)
        for first in range(0, len(headers), _TOGETHER):
            self._look_into(headers[first : first + _TOGETHER], whole=root_is_file)

    def scans(self) -> Iterator[Scan]:
        """Give what was found: series by their numbers, then files by their names."""
        series = [self._scan_of(uid, found) for uid, found in self._series.items()]
        yield from sorted([*series, *self._archived], key=_rank)
        yield from self._damaged
        yield from sorted(self._volumes, key=lambda scan: scan.source)

    def _has_name(self, name: str, url: str) -> bool:
        """Whether a disk can have the name; else it is noted as a fault."""
        try:
            check_name(name, url)
        except InputError as error:
            place = PurePosixPath(f"{len(self._damaged)}")
            self._damaged.append(
                Scan(source=url, series=None, folder=place, size=0, modified=0, fault=str(error))
            )
            return False
        return True

    def _look_into(self, files: Sequence[StoredFile], *, whole: bool) -> None:
        """Note the DICOM series, and the volumes without a suffix, of the files of a folder."""
        with workspace() as folder:
            inside = folder / "in"
            paths = {inside / name_of(file.url): file for file in files}
            self._fetch(inside, paths, whole=whole)
            for found in find_scans(next(iter(paths)) if whole else inside):
                self._note(found, paths)

    def _look_into_archive(self, file: StoredFile) -> None:
        """Note the DICOM series of an archive among other files."""
        try:
            self._look_into([file], whole=True)
        except InputError as error:
            scan = self._volume(file, ())
            self._damaged.append(dataclasses.replace(scan, fault=str(error)))

    def _fetch(self, folder: Path, paths: dict[Path, StoredFile], *, whole: bool) -> None:
        folder.mkdir()
        most = max(file.size for file in paths.values()) if whole else _BEGINNING
        size = sum(min(file.size, most) for file in paths.values())
        require_room(folder, size, parent(next(iter(paths.values())).url))
        if whole:
            self.store.fetch([*paths.values()], [*paths])
            return
        self.store.fetch_beginnings([*paths.values()], [*paths], _BEGINNING)
        cut = [path for path, file in paths.items() if file.size > _BEGINNING]
        for path in cut:
            if is_dicom(path) and not _reaches_pixels(path):
                require_room(folder, paths[path].size, paths[path].url)
                self.store.fetch([paths[path]], [path])

    def _note(self, found: FoundScan, paths: dict[Path, StoredFile]) -> None:
        files = [paths[file] for file in found.files or (found.path,) if file in paths]
        if found.series is None:
            scan = self._volume(files[0], ())
            if found.fault:
                fault = found.fault.replace(str(found.path), files[0].url)
                scan = dataclasses.replace(scan, fault=fault)
            (self._damaged if found.fault else self._volumes).append(scan)
        elif found.files:
            series = self._series[found.series]
            series.number = series.number or found.number
            series.files += files
        else:
            archive = files[0]
            name = PurePosixPath(name_of(archive.url))
            self._archived.append(
                Scan(
                    source=archive.url,
                    series=found.series,
                    number=found.number,
                    folder=self._prefix / self._below(archive).parent / name.with_suffix(""),
                    size=archive.size,
                    modified=archive.modified,
                )
            )

    def _scan_of(self, uid: str, series: _Series) -> Scan:
        """A series with its files in their common folder."""
        names = sorted(self._below(file).as_posix() for file in series.files)
        folder = os.path.commonpath([os.path.dirname(name) for name in names])
        return Scan(
            source=joined(self.root, folder) if folder else self.root,
            files=tuple(os.path.relpath(name, folder or ".") for name in names),
            series=uid,
            number=series.number,
            folder=self._prefix / folder,
            size=sum(file.size for file in series.files),
            modified=max(file.modified for file in series.files),
        )

    def _volume(self, file: StoredFile, others: Sequence[StoredFile]) -> Scan:
        below = self._below(file)
        name = name_of(file.url)
        names = pair_of(name) if suffix_of(name).startswith(".hdr") else ()
        pair = [other for other in others if name_of(other.url) in names]
        return Scan(
            source=file.url,
            series=None,
            folder=self._prefix / below.parent,
            name=name,
            size=file.size + sum(other.size for other in pair),
            modified=max(other.modified for other in (file, *pair)),
        )

    def _below(self, file: StoredFile) -> PurePosixPath:
        name = file.url[len(self.root) + 1 :]
        check_name(name, file.url)
        return PurePosixPath(name)


def _rank(scan: Scan) -> tuple[float, str]:
    number = scan.number
    rank = int(number) if number.lstrip("-").isdecimal() else float("inf")
    return rank, scan.source


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _reaches_pixels(path: Path) -> bool:
    """Whether the beginning of a DICOM file holds its whole header."""
    from pydicom import dcmread

    with path.open("rb") as stream:
        try:
            dcmread(stream, stop_before_pixels=True, force=True, specific_tags=["Rows"])
        except Exception:  # of a header that is cut, pydicom raises whatever comes first
            return False
        return stream.read(4) in _PIXELS
