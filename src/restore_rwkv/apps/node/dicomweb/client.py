"""DICOMweb (PS3.18): search for series, retrieve and store them.

dicomweb-client is not used: it holds a whole series in memory, and has no limits on what a server
answers.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from restore_rwkv.apps.node.dicomweb.multipart import (
    MultipartError,
    MultipartFiles,
    Sizes,
    boundary_of,
    parts,
)
from restore_rwkv.apps.node.dicomweb.request import (
    PATIENCE,
    Answer,
    Patience,
    Request,
    WebError,
    WebService,
    ask,
)
from restore_rwkv.apps.node.outgoing import DUPLICATE, Outgoing, SendError, is_transient

_LOG = logging.getLogger(__name__)

_PAGE = 200
_MOST_PAGES = 5000
_MOST_JSON = 64 * 2**20
_BATCH_BYTES = 32 * 2**20
_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_UID = re.compile(r"[0-9.]{1,64}")

_STUDY, _SERIES, _INSTANCE = "0020000D", "0020000E", "00080018"
_STUDY_DATE, _MODALITY, _COUNT = "00080020", "00080060", "00201209"
_FAILED, _STORED, _REFERENCED, _REASON = "00081198", "00081199", "00081155", "00081197"


@dataclass(frozen=True, kw_only=True)
class ArchivedSeries:
    """A series that an archive has.

    Attributes:
        study_uid: StudyInstanceUID.
        series_uid: SeriesInstanceUID.
        modality: as the archive says; empty where it does not.
        instances: number of its instances.
    """

    study_uid: str
    series_uid: str
    modality: str
    instances: int


class DicomWeb:
    """A DICOMweb service.

    Args:
        service: address and credentials.
        sizes: limits on what is retrieved: bytes of an instance, and of a series.
        patience: how long to wait.
    """

    def __init__(self, service: WebService, sizes: Sizes, patience: Patience = PATIENCE) -> None:
        self._service = service
        self._sizes = sizes
        self._patience = patience

    def search(self, modality: str | None = None, days: int | None = None) -> list[ArchivedSeries]:
        """Return the series of a modality and of the last days (QIDO-RS).

        Args:
            modality: such as "MR"; None for all.
            days: how many days back, by StudyDate; None for all.

        Raises:
            WebError: the archive cannot be searched.
        """
        query: dict[str, str | int] = {"includefield": _COUNT}
        if modality:
            query["Modality"] = modality
        first = last = ""
        if days is not None:
            # A day more at the end: an archive may be in a time zone where it is tomorrow.
            first = f"{date.today() - timedelta(days=days):%Y%m%d}"
            last = f"{date.today() + timedelta(days=1):%Y%m%d}"
            query["StudyDate"] = f"{first}-{last}"
        found = []
        for row in self._pages("/series", query, _SERIES):
            day, kind = _text(row, _STUDY_DATE), _text(row, _MODALITY)
            if (first and day and not first <= day <= last) or (modality and kind != modality):
                continue  # an archive may ignore conditions that it does not know
            uids = {"study_uid": _uid(row, _STUDY), "series_uid": _uid(row, _SERIES)}
            if not all(uids.values()):
                continue
            count = _number(row, _COUNT)
            if count is None:
                path = f"/studies/{uids['study_uid']}/series/{uids['series_uid']}/instances"
                count = sum(1 for _ in self._pages(path, {}, _INSTANCE))
            found.append(ArchivedSeries(**uids, modality=kind, instances=count))
        return found

    def header(self, series: ArchivedSeries) -> Mapping[str, Any]:
        """Return the metadata of one instance of a series, as DICOM JSON; empty if it has none.

        Raises:
            WebError: the archive does not give it.
        """
        path = f"/studies/{series.study_uid}/series/{series.series_uid}/instances"
        for row in self._rows(path, {"limit": 1}):
            if uid := _uid(row, _INSTANCE):
                return next(iter(self._rows(f"{path}/{uid}/metadata", {})), {})
        return {}

    def retrieve(self, series: ArchivedSeries) -> Iterator[bytes]:
        """Yield the instances of a series as files, one at a time (WADO-RS).

        They keep their transfer syntaxes.

        Raises:
            WebError: the archive does not give them, breaks off, or exceeds a limit.
        """
        accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
        path = f"/studies/{series.study_uid}/series/{series.series_uid}"
        request = Request(path=path, accept=accept)
        with ask(self._service, request, self._patience) as answer:
            try:
                yield from parts(answer.read, boundary_of(answer.content_type), self._sizes)
            except MultipartError as error:
                raise WebError(
                    f"{self._service.name}: {error}; see the log of the archive",
                    transient=error.transient,
                ) from error

    def store(self, files: Sequence[Outgoing]) -> Iterator[Path]:
        """Store files, and yield each that has been taken (STOW-RS).

        Args:
            files: sent in requests of at most 32 MB, or of one file.

        Raises:
            SendError: a file was not taken.
            WebError: the service cannot be reached, or refuses the request.
        """
        batches = _batches(files)
        while batches:
            batch = batches.pop(0)
            try:
                status, said = self._post(batch)
            except WebError as error:
                if error.status != 413 or len(batch) == 1:
                    raise
                half = len(batch) // 2
                batches[:0] = [batch[:half], batch[half:]]
                continue
            yield from self._taken(batch, status, said)

    def _pages(self, path: str, query: Mapping[str, str | int], key: str) -> Iterator[Any]:
        """Yield the rows of a search, each UID of `key` once; an archive limits what it answers."""
        seen: set[str] = set()
        offset = 0
        for _ in range(_MOST_PAGES):
            rows = self._rows(path, {**query, "limit": _PAGE, "offset": offset})
            before = len(seen)
            for row in rows:
                uid = _uid(row, key)
                if uid and uid not in seen:
                    seen.add(uid)
                    yield row
            if len(seen) == before:  # the end, or the same page for any offset
                return
            offset += len(rows)
        raise WebError(
            f"{self._service.name}: finds more than {offset} at a time; look back fewer days",
            transient=False,
        )

    def _rows(self, path: str, query: Mapping[str, str | int]) -> list[Any]:
        request = Request(path=path, query=query)
        with ask(self._service, request, self._patience) as answer:
            rows = answer.json(_MOST_JSON)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise WebError(
                f"{self._service.name}: answers a search with JSON that is not DICOM; "
                "check its url",
                transient=False,
            )
        return rows

    def _post(self, batch: Sequence[Outgoing]) -> tuple[int, Mapping[str, Any]]:
        """Store files; return the status and what the server says of each of them."""
        body = MultipartFiles([file.path for file in batch])
        request = Request(
            path="/studies", content_type=body.content_type, body=body, answers=(409,)
        )
        try:
            with ask(self._service, request, self._patience) as answer:
                if answer.status == 200 and "json" not in answer.content_type:
                    self._check_confirmed(answer)
                    return answer.status, {}
                said = answer.json(_MOST_JSON)
        finally:
            body.close()
        said = said[0] if isinstance(said, list) and said else said
        if answer.status == 200 and not (isinstance(said, dict) and all(map(_TAG.fullmatch, said))):
            raise self._not_confirmed()
        return answer.status, said if isinstance(said, dict) else {}

    def _check_confirmed(self, answer: Answer) -> None:
        """Raise WebError unless an answer with status 200 that is not JSON says that all is well.

        A page on which someone shall log in comes with status 200 too.
        """
        body = answer.body(_MOST_JSON)
        kind = answer.content_type.lower()
        is_xml = "xml" in kind and "html" not in kind and b"<html" not in body.lower()
        if body.strip() and (not is_xml or _FAILED.encode() in body):
            raise self._not_confirmed()

    def _not_confirmed(self) -> WebError:
        return WebError(
            f"{self._service.name}: answers, and does not say that it has the files; check its url",
            transient=True,
        )

    def _taken(
        self, batch: Sequence[Outgoing], status: int, said: Mapping[str, Any]
    ) -> Iterator[Path]:
        """Yield the files that were taken; raise SendError if there are others."""
        failed = {_uid(row, _REFERENCED): _number(row, _REASON) for row in _items(said, _FAILED)}
        stored = {_uid(row, _REFERENCED) for row in _items(said, _STORED)}
        reasons = []
        for file in batch:
            uid = file.sop_instance_uid
            # A server that says with status 200 nothing of its files has taken all of them.
            if uid in stored or (uid not in failed and status == 200 and not stored):
                yield file.path
            elif failed.get(uid) == DUPLICATE:
                _LOG.info("%s: has a file already (0x0111)", self._service.name)
                yield file.path
            else:
                reasons.append(failed.get(uid))
        if not reasons:
            return
        permanent = [
            reason for reason in reasons if reason is not None and not is_transient(reason)
        ]
        shown = (permanent or reasons)[0]
        why = "without a reason" if shown is None else f"reason 0x{shown:04X}"
        raise SendError(
            f"{self._service.name}: does not take {len(reasons)} of {len(batch)} files, {why}; "
            "see the log of the server",
            transient=not permanent,
        )


def _batches(files: Sequence[Outgoing]) -> list[list[Outgoing]]:
    """Divide files into batches of bounded size, or of one file."""
    batches: list[list[Outgoing]] = []
    room = 0
    for file in files:
        if file.size > room:
            batches.append([])
            room = _BATCH_BYTES
        batches[-1].append(file)
        room -= file.size
    return batches


def _first(row: Mapping[str, Any], tag: str) -> Any:
    """Return the first value of an element of DICOM JSON; None if there is none."""
    element = row.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None


def _text(row: Mapping[str, Any], tag: str) -> str:
    value = _first(row, tag)
    return value.strip() if isinstance(value, str) else ""


def _uid(row: Mapping[str, Any], tag: str) -> str:
    """Return a UID, which becomes a part of addresses; empty where it is not one."""
    uid = _text(row, tag)
    return uid if _UID.fullmatch(uid) else ""


def _number(row: Mapping[str, Any], tag: str) -> int | None:
    """Return a whole number, which older archives write as text; None where there is none."""
    try:
        return int(_first(row, tag))
    except (TypeError, ValueError, OverflowError):
        return None


def _items(row: Mapping[str, Any], tag: str) -> list[Mapping[str, Any]]:
    element = row.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return [item for item in values or () if isinstance(item, dict)]
