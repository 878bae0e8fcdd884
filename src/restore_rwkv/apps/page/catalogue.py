"""The scans that can be restored: those of the folder given, and those that were dropped.

They are looked at in a thread, one after the other, as `restore-rwkv check` does.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import math
import os
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from restore_rwkv.apps.page.demo import NAME, make_demo_scan
from restore_rwkv.apps.page.jobs import JobSource
from restore_rwkv.apps.words import Words
from restore_rwkv.errors import InputError, kind_of_error
from restore_rwkv.io.html import plain

if TYPE_CHECKING:
    from restore_rwkv.io import FoundScan
    from restore_rwkv.restoration import Checked, Checker

_logger = logging.getLogger(__name__)
_MOST_SCANS = 5000
_HEADERS = (".hdr", ".hdr.gz", ".nhdr", ".mhd")  # whose voxels lie in a file beside them
_IMPORTS = threading.Lock()


def import_readers() -> None:
    """Import what reads scans: where several threads do so at the same time, pydicom breaks."""
    with _IMPORTS:
        import pydicom  # noqa: F401

        import restore_rwkv.io  # noqa: F401


def import_library() -> None:
    """Import what restores scans, PyTorch too, which takes seconds."""
    import_readers()
    with _IMPORTS:
        import restore_rwkv.restoration  # noqa: F401


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where scans are looked for.

    Attributes:
        path: file or folder.
        upload: id of the upload; None for the folder given.
        name: of the upload; empty for the folder given.
    """

    path: Path
    upload: str | None = None
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """A scan as the page lists it.

    Attributes:
        id: the same whenever the same place is looked at.
        name: below the folder given, or of the upload.
        place: where it was found.
        state: whether it can be restored.
        path: file or folder; None where none was found.
        series: SeriesInstanceUID; None for other formats than DICOM.
        reason: why it is refused.
        checked: what `check` says; None where it was not looked at.
        found: as it was found, to be looked at again.
    """

    id: str
    name: str
    place: Place
    state: Literal["looking", "ready", "refused"] = "looking"
    path: Path | None = None
    series: str | None = None
    reason: str = ""
    checked: Checked | None = None
    found: FoundScan | None = None

    @property
    def source(self) -> JobSource:
        """Where a job finds it; only of a scan that is ready."""
        assert self.path is not None
        assert self.checked is not None
        assert self.checked.shape is not None
        return JobSource(
            path=self.path,
            series=self.series,
            placed=self.checked.spacing is not None,
            flat=self.checked.shape[2] == 1,
            voxels=math.prod(self.checked.shape) * self.checked.volumes,
        )


class Catalogue:
    """All scans, and the thread that looks at them.

    Args:
        device: as for `Checker`.
        words: for reasons.
        changed: called whenever the list has changed.
    """

    def __init__(self, device: str, words: Words, changed: Callable[[], None]) -> None:
        self._device, self._words, self._changed = device, words, changed
        self._lock = threading.Lock()
        self._scans: dict[str, Scan] = {}
        self._waiting: queue.Queue[Callable[[], None]] = queue.Queue()
        self._stopped = threading.Event()
        self._forgotten: set[str] = set()
        self._checkers: dict[str, Checker] = {}
        self._thread = threading.Thread(target=self._work, name="looking", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Stop the thread after the scan that it looks at, and wait for it for so long."""
        self._stopped.set()
        self._waiting.put(lambda: None)
        self._thread.join(seconds)

    def look(self, place: Place) -> None:
        """Have a place looked at."""
        self._waiting.put(partial(self._look, place))

    def look_at_demo(self, folder: Path) -> None:
        """Have the demo scan made in a folder and looked at."""
        self._waiting.put(partial(self._look_at_demo, folder))

    def decide(self, scan: Scan, task: str) -> Scan:
        """Have a scan looked at again as one for a task, and return it as it is meanwhile."""
        looking = dataclasses.replace(scan, state="looking", reason="", checked=None)
        if self._put(looking):
            self._waiting.put(partial(self._judge, looking, task))
        return looking

    def forget(self, upload: str) -> None:
        """Leave out the scans of an upload."""
        with self._lock:
            self._forgotten.add(upload)
            for scan in [scan for scan in self._scans.values() if scan.place.upload == upload]:
                del self._scans[scan.id]
        self._changed()

    def all(self) -> list[Scan]:
        """Return all scans, in the order in which they were found."""
        with self._lock:
            return list(self._scans.values())

    def get(self, key: str) -> Scan | None:
        """Return a scan; None where there is none of that id."""
        with self._lock:
            return self._scans.get(key)

    def _work(self) -> None:
        import_readers()
        while not self._stopped.is_set():
            self._waiting.get()()

    def _look_at_demo(self, folder: Path) -> None:
        place = Place(path=folder / NAME)
        self._put(Scan(id=_id(place, f"{NAME}\0"), name=NAME, place=place))  # at once
        try:
            import_library()
            make_demo_scan(folder)
        except Exception as error:
            self._refuse(place, error, NAME)
        else:
            self._look(place)

    def _look(self, place: Place) -> None:
        """List the scans of a place, then look at each."""
        pending: list[Scan] = []
        try:
            for found, refusal in self._found(place):
                scan = _scan_of(found, place)
                if refusal:
                    self._put(dataclasses.replace(scan, state="refused", reason=refusal))
                elif self._put(scan):
                    pending.append(scan)
        except Exception as error:  # a place that cannot be searched shall not end the page
            self._refuse(place, error)
        if not pending:
            self._say_if_empty(place)
        for scan in pending:
            if self._stopped.is_set() or place.upload in self._forgotten:
                return
            self._judge(scan)

    def _found(self, place: Place) -> Iterator[tuple[FoundScan, str]]:
        """Scans of a place, each with why it is refused before it is looked at."""
        from restore_rwkv.io import find_scans

        root = os.path.realpath(place.path)
        for number, found in enumerate(find_scans(place.path)):
            if self._stopped.is_set() or number >= _MOST_SCANS:
                return
            outside = place.path.is_dir() and _leads_out(found, root)
            yield found, "is or uses a link that leads out of the folder" if outside else ""

    def _judge(self, scan: Scan, task: str = "auto") -> None:
        """Look at a scan, and list what `check` says."""
        self._put(self._judged(scan, task))

    def _judged(self, scan: Scan, task: str) -> Scan:
        assert scan.found is not None
        try:
            import_library()
            from restore_rwkv.restoration import Checker

            if task not in self._checkers:
                self._checkers[task] = Checker(task, device=self._device)
            checked = self._checkers[task].look(scan.found)
        except Exception as error:  # one broken file shall not end the others
            if kind_of_error(error) == "bug":
                _logger.error("%s: %s", scan.name, self._words.error(error))
            return dataclasses.replace(scan, state="refused", reason=self._words.error(error))
        # Only its modality is not known: the user says what to take it for.
        undecided = checked.shape is not None and checked.modality is None and task == "auto"
        ready = undecided or not checked.refusals
        reason = "" if ready else self._words.line(checked.refusals[0])
        state: Literal["ready", "refused"] = "ready" if ready else "refused"
        return dataclasses.replace(scan, state=state, reason=reason, checked=checked)

    def _put(self, scan: Scan) -> bool:
        """List a scan, unless its upload was forgotten meanwhile."""
        with self._lock:
            if scan.place.upload in self._forgotten:
                return False
            self._scans[scan.id] = scan
        self._changed()
        return True

    def _refuse(self, place: Place, error: BaseException, below: str = "") -> None:
        """List a place that cannot be searched at all."""
        if kind_of_error(error) == "bug":
            _logger.error("%s: %s", place.name, self._words.error(error))
        name = plain(place.name) or place.path.name
        reason = self._words.error(error)
        key = _id(place, f"{below}\0" if below else "")
        self._put(Scan(id=key, name=name, place=place, state="refused", reason=reason))

    def _say_if_empty(self, place: Place) -> None:
        """List an upload without any scan as refused: otherwise nothing would show that it came."""
        if place.upload and not any(s.place.upload == place.upload for s in self.all()):
            nothing = InputError("holds no scan; give NIfTI, DICOM or a zip archive of DICOM files")
            self._refuse(place, nothing)


def _scan_of(found: FoundScan, place: Place) -> Scan:
    base = place.path if place.path.is_dir() else place.path.parent
    below = os.path.relpath(found.path, base).replace(os.sep, "/")
    series = found.name.removeprefix(str(found.path)).removeprefix(": ")
    if place.upload is not None and below == (place.path.name if base != place.path else "."):
        below = place.name  # which may have signs that no name of a file has here
    parts = [part for part in (below if below != "." else "", series) if part]
    return Scan(
        id=_id(place, f"{below}\0{found.series or ''}"),
        name=plain(": ".join(parts)) or plain(place.name) or "scan",
        place=place,
        path=found.path,
        series=found.series,
        found=found,
    )


def _id(place: Place, text: str) -> str:
    where = place.upload or os.path.realpath(place.path)
    return hashlib.sha256(f"{where}\0{text}".encode(errors="surrogatepass")).hexdigest()[:16]


def _leads_out(found: FoundScan, root: str) -> bool:
    """Whether a file of a scan, or one beside a header that may hold its voxels, lies outside."""
    files = [found.path, *found.files]
    if found.series is None and found.path.name.lower().endswith(_HEADERS):
        files += [file for file in found.path.parent.iterdir() if file.is_symlink()]
    inside = root + os.sep
    return any(
        real != root and not real.startswith(inside) for real in map(os.path.realpath, files)
    )
