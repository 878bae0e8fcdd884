"""Jobs whose scan or output lies in a store: both are on this disk while a worker has the job."""

from __future__ import annotations

import dataclasses
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from restore_rwkv.batch.job import Job
from restore_rwkv.batch.storage import (
    Store,
    StoredFile,
    changed,
    check_name,
    holds,
    is_url,
    joined,
    name_of,
    pair_of,
    parent,
    plain,
    store_of,
)
from restore_rwkv.batch.workspace import require_room, workspace
from restore_rwkv.errors import InputError, RestoreError, StorageError
from restore_rwkv.io import OutputOptions, Progress, Target, begin_stage
from restore_rwkv.io.inheritance import DESCRIPTION, bids_name
from restore_rwkv.io.kinds import suffix_of

_SIDECARS = (".json", ".restoration.json", ".degradation.json")
_NAMED = {
    ".nhdr": re.compile(rb"^data file:[ \t]*(.+?)[ \t]*\r?$", re.I | re.M),
    ".nrrd": re.compile(rb"^data file:[ \t]*(.+?)[ \t]*\r?$", re.I | re.M),
    ".mhd": re.compile(rb"^ElementDataFile[ \t]*=[ \t]*(.+?)[ \t]*\r?$", re.M),
    ".mha": re.compile(rb"^ElementDataFile[ \t]*=[ \t]*(.+?)[ \t]*\r?$", re.M),
}
_LONGEST_HEADER = 1 << 16


@contextmanager
def staged(job: Job, progress: Progress | None = None) -> Iterator[Job]:
    """Give a job whose source and target are paths on this disk, for the length of the block.

    Paths stay as they are. From a URL, the files of the scan are fetched into a private temporary
    folder, with the files beside it that say something of it. An output that the store has already,
    with its record, is fetched too, so that a worker finds it as it would on a disk.

    When the block ends without an error, a new output is written into the store: the image or all
    files of the series first, then the record, each after the store has confirmed those before.
    Stores rename no two objects at once, so this order stands for it: **where there is a record,
    the output is complete**. Until then a file `.NAME.partial` beside the output says that what is
    there is unfinished; the next attempt overwrites it, while files that are there without a record
    and without that mark belong to somebody else and are refused. If two attempts write at once,
    the one whose mark has been replaced, or whose files have, ends in an error; a mixture that this
    does not notice cannot agree with the digests of its record.

    Args:
        job: its source and target are URLs or paths.
        progress: is told what goes on.

    Raises:
        InputError: the scan is not there, changes while it is read, or has names that no disk has;
            or there is something else where the output would go.
        StorageError: the store cannot be used, or the disk has no room.
        ConfigError: as `store_of`.
        OSError: the disk is full.
    """
    job = dataclasses.replace(job, source=plain(job.source), target=plain(job.target))
    if not (is_url(job.source) or is_url(job.target)):
        yield job
        return
    with workspace() as folder:
        local, output = job, None
        if is_url(job.source):
            begin_stage(progress, f"fetching {name_of(job.source)}")
            local = dataclasses.replace(local, source=str(_Source(job, folder / "in").fetch()))
        if is_url(job.target):
            output = _Output(job, folder / "out")
            output.fetch()
            local = dataclasses.replace(local, target=str(output.path))
        yield local
        if output is not None:
            begin_stage(progress, f"storing {name_of(job.target)}")
            output.store()


def in_terms_of(job: Job, local: Job, text: str) -> str:
    """Return a message about a staged job with the places that the job itself names."""
    for there, here in ((job.target, local.target), (job.source, local.source)):
        if there != here:
            text = text.replace(here, there)
    return text


class _Source:
    """The scan of a job in a store, and where it goes on the disk."""

    def __init__(self, job: Job, folder: Path) -> None:
        self._job, self._folder = job, folder
        self._store = store_of(job.source)
        name = name_of(job.source)
        check_name(name, job.source)
        self.path = folder / name

    def fetch(self) -> Path:
        self._folder.mkdir()
        if self._job.files:
            self._fetch_series()
        else:
            self._fetch_volume()
        return self.path

    def _fetch_series(self) -> None:
        source = self._job.source
        for name in self._job.files:
            check_name(name, joined(source, name))
        urls = [joined(source, name) for name in self._job.files]
        before = self._listed(urls)
        files = [self._required(url, before) for url in urls]
        require_room(self._folder, sum(file.size for file in files), self._job.name)
        self._store.fetch(files, [self.path / name for name in self._job.files])
        after = self._listed(urls)
        for file in files:
            _require_same(file, after.get(file.url))

    def _listed(self, urls: Sequence[str]) -> dict[str, StoredFile]:
        """The files in all folders of a series, by their URLs: a request for 1000 of them."""
        folders = dict.fromkeys(parent(url) for url in urls)
        return {file.url: file for folder in folders for file in self._store.list(folder)[0]}

    def _required(self, url: str, listed: dict[str, StoredFile]) -> StoredFile:
        if url not in listed:
            raise InputError(f"{url}: no such object; check the URL")
        return listed[url]

    def _fetch_volume(self) -> None:
        source = self._job.source
        first = self._store.look(source)
        if first is None:
            raise InputError(f"{source}: no such object; check the URL")
        root, inherited = self._inherited()
        self.path = self._folder / source[len(root) + 1 :]
        beside = [file for name in self._beside() if (file := self._look(name)) is not None]
        files = list({file.url: file for file in (first, *beside, *inherited)}.values())
        require_room(self._folder, sum(file.size for file in files), self._job.name)
        self._store.fetch(files, [self._folder / file.url[len(root) + 1 :] for file in files])
        named = self._named()
        voxels = None if named is None else self._look(named)
        if voxels is not None and voxels.url != source:
            require_room(self._folder, voxels.size, self._job.name)
            self._store.fetch([voxels], [self.path.parent / str(named)])
            files.append(voxels)
        for file in files:
            _require_same(file, self._store.look(file.url))

    def _inherited(self) -> tuple[str, list[StoredFile]]:
        """The folder of the image or of its BIDS dataset, and the JSON files that may apply."""
        above = parent(self._job.source)
        name = bids_name(self.path.name)
        if name is None or "sub" not in name.entities:
            return above, []
        folders = [above]
        for key in ("ses", "sub"):
            if key in name.entities:
                folders.append(parent(folders[-1]))
                if name_of(folders[-1]) != f"{key}-{name.entities[key]}":
                    return above, []
        folders.append(parent(folders[-1]))
        description = self._store.look(joined(folders[-1], DESCRIPTION))
        if description is None:
            return above, []
        files = [file for folder in folders for file in self._store.list(folder)[0]]
        suffix = f"{name.suffix}.json"
        return folders[-1], [
            description,
            *(file for file in files if name_of(file.url).rpartition("_")[2] == suffix),
        ]

    def _look(self, name: str) -> StoredFile | None:
        return self._store.look(joined(parent(self._job.source), name))

    def _beside(self) -> list[str]:
        """Names of files that may lie beside an image and are read with it."""
        name = self.path.name
        inner = Path(name).with_suffix("") if name.lower().endswith(".gz") else Path(name)
        sidecars = [inner.with_suffix(sidecar).name for sidecar in _SIDECARS]
        return [*pair_of(name), *sidecars]

    def _named(self) -> str | None:
        """The file that a header names for its voxels, in its folder or below it."""
        pattern = _NAMED.get(suffix_of(self.path.name))
        if pattern is None:
            return None
        with self.path.open("rb") as stream:
            match = pattern.search(stream.read(_LONGEST_HEADER))
        name = match[1].decode("utf-8", "replace") if match else "LOCAL"
        try:
            check_name(name, self._job.source)
        except InputError:
            return None  # whoever reads the header refuses it
        return None if name.upper() == "LOCAL" else name


def _require_same(before: StoredFile, after: StoredFile | None) -> None:
    if after is None or after.version != before.version:
        raise InputError(changed(before.url))


class _Output:
    """The output of a job in a store, and its place on the disk."""

    def __init__(self, job: Job, folder: Path) -> None:
        self._job, self._folder = job, folder
        self._store: Store = store_of(job.target)
        name = name_of(job.target)
        check_name(name, job.target)
        self.path = folder / name
        self._record = Target(self.path, job.is_series, OutputOptions()).record
        self._above = parent(job.target)
        self._record_url = joined(self._above, self._record.name)
        self._mark_url = joined(self._above, f".{name}.partial")
        self._earlier = False

    def fetch(self) -> None:
        """Fetch an output that is there with its record.

        Raises:
            InputError: something else is there.
        """
        self._folder.mkdir()
        record, there = self._store.look(self._record_url), self._there()
        if record is None:
            if there and self._store.look(self._mark_url) is None:
                raise InputError(
                    f"{self._job.target}: exists already, without a record; remove it, or name "
                    "another folder"
                )
            return
        if not there:
            raise InputError(
                f"{self._record_url}: is the record of an output that is not there; remove it"
            )
        files = [record, *there]
        require_room(self._folder, sum(file.size for file in files), self._job.name)
        places = [self._record, *(self._place(file.url) for file in there)]
        self._store.fetch(files, places)
        self._earlier = True
        with suppress(RestoreError):  # of a process that was killed after the record
            self._store.remove([self._mark_url])

    def store(self) -> None:
        """Write the output into the store, if a new one has been made."""
        if self._earlier or not self.path.exists():
            return
        files = sorted(self.path.iterdir()) if self._job.is_series else [self.path]
        urls = [self._url(file) for file in files]
        mark = secrets.token_hex(16).encode()
        self._store.write(self._mark_url, mark)
        mine: list[str] = []
        try:
            left = {file.url for file in self._there()} - set(urls)
            self._store.remove(sorted(left))
            mine = urls
            self._store.put(files, urls)
            self._confirm(files, urls)
            other = self._store.look(self._record_url) is not None
            if other or self._store.read(self._mark_url) != mark:
                mine = []
                raise StorageError(
                    f"{self._job.target}: another process is writing it; try again once it has "
                    "ended"
                )
            mine = [self._record_url, *urls]
            self._store.put([self._record], [self._record_url])
            self._confirm([self._record], [self._record_url])
        except BaseException:
            for url in mine:  # what remains has no record, and the mark
                with suppress(Exception):
                    self._store.remove([url])
            raise
        self._store.remove([self._mark_url])

    def _confirm(self, files: Sequence[Path], urls: Sequence[str]) -> None:
        """Check what the store says of files that were written."""
        listed: dict[str, StoredFile] = {}
        if len(urls) > 1:
            listed = {file.url: file for file in self._store.list(parent(urls[0]))[0]}
        for file, url in zip(files, urls, strict=True):
            found = listed.get(url) or self._store.look(url)
            if found is None or not holds(found, file, self._store):
                raise StorageError(
                    f"{url}: the store does not hold what was written into it; check the store, "
                    "and try again"
                )

    def _there(self) -> list[StoredFile]:
        if self._job.is_series:
            return self._store.list(self._job.target)[0]
        found = self._store.look(self._job.target)
        return [] if found is None else [found]

    def _url(self, file: Path) -> str:
        return joined(self._job.target, file.name) if self._job.is_series else self._job.target

    def _place(self, url: str) -> Path:
        if not self._job.is_series:
            return self.path
        check_name(name_of(url), url)
        return self.path / name_of(url)
