"""What the page answers: the requests of its interface, each a few lines over one part."""

from __future__ import annotations

import dataclasses
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from restore_rwkv.apps.page.access import REPORT_POLICY
from restore_rwkv.apps.page.catalogue import Catalogue, Place, Scan, import_library
from restore_rwkv.apps.page.events import SCANS, EventResponse, Hub
from restore_rwkv.apps.page.facts import Facts
from restore_rwkv.apps.page.jobs import Job, JobOptions, Jobs, stem_of
from restore_rwkv.apps.page.refusals import ConflictError, MissingError, read_json
from restore_rwkv.apps.page.runner import Runner, results_of
from restore_rwkv.apps.page.state import StateFolder
from restore_rwkv.apps.page.uploads import Upload, Uploads
from restore_rwkv.apps.page.values import VIEWS, job_values, scan_values
from restore_rwkv.apps.page.zipped import zipped
from restore_rwkv.apps.words import Words
from restore_rwkv.errors import ConfigError
from restore_rwkv.options import from_mapping
from restore_rwkv.tasks.table import get_task

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_STATIC = Path(__file__).with_name("static")
_STATIC_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*")
# Not the system's table, in which Windows may say that scripts are plain text.
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}
_GZIP = "application/gzip"
_NO_FILES = "job: its files have gone; restore the scan again"
_NO_SCAN = "scan: is not there any more; look at the list again"


@dataclass(frozen=True, kw_only=True)
class Parts:
    """All that the answers are made from."""

    state: StateFolder
    jobs: Jobs
    runner: Runner
    uploads: Uploads
    catalogue: Catalogue
    hub: Hub
    words: Words
    facts: Facts


class Answers:
    """The answers of one page.

    Args:
        parts: of the page.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def routes(self) -> list[Route]:
        """Return which address is answered by what."""
        job = "/api/jobs/{id:int}"
        return [
            Route("/", self.index),
            Route("/static/{name:path}", self.static),
            Route("/api/state", self.state),
            Route("/api/scans", self.scans),
            Route("/api/scans/{id}", self.decide, methods=["POST"]),
            Route("/api/events", self.events),
            Route("/api/uploads/{id}/done", self.finish_upload, methods=["POST"]),
            Route("/api/uploads/{name:path}", self.upload, methods=["PUT"]),
            Route("/api/uploads/{id}", self.forget_upload, methods=["DELETE"]),
            Route("/api/jobs", self.add_job, methods=["POST"]),
            Route(job, self.job),
            Route(job, self.end_job, methods=["DELETE"]),
            Route(f"{job}/record", self.record),
            Route(f"{job}/report", self.report),
            Route(f"{job}/download", self.download),
            Route(f"{job}/maps/{{name}}.nii.gz", self.map),
            Route(f"{job}/{{name}}.nii.gz", self.view),
        ]

    def index(self, request: Request) -> Response:
        """Answer with the page."""
        return FileResponse(_STATIC / "index.html", media_type=_KINDS[".html"])

    def static(self, request: Request) -> Response:
        """Answer with a file of the page."""
        name = request.path_params["name"]
        path = _STATIC / name
        kind = _KINDS.get(path.suffix)
        if not _STATIC_NAME.fullmatch(name) or kind is None or not path.is_file():
            raise HTTPException(404)
        return FileResponse(path, media_type=kind, headers={"Cache-Control": "no-cache"})

    def state(self, request: Request) -> Response:
        """Answer with what does not change, and all jobs."""
        jobs = [self._values(job) for job in self._parts.jobs.all()]
        return JSONResponse({**self._parts.facts.values(), "jobs": jobs})

    def scans(self, request: Request) -> Response:
        """Answer with all scans."""
        found = self._parts.catalogue.all()
        return JSONResponse([scan_values(scan, self._parts.words) for scan in found])

    async def decide(self, request: Request) -> Response:
        """Have a scan looked at again, as one for the task that is given."""
        values, parts = await read_json(request), self._parts
        task = get_task(str(values.get("task") if isinstance(values, dict) else None)).name
        scan = parts.catalogue.get(request.path_params["id"])
        if scan is None or scan.found is None:
            raise MissingError(_NO_SCAN)
        if scan.state == "looking":
            raise ConflictError(f"{scan.name}: is still being looked at; wait for it")
        return JSONResponse(scan_values(parts.catalogue.decide(scan, task), parts.words), 202)

    async def events(self, request: Request) -> ASGIApp:
        """Answer with what changes from now on, after all that there is."""
        jobs = await run_in_threadpool(self._parts.jobs.all)
        topics = [SCANS, *(str(job.id) for job in jobs)]
        return EventResponse(self._parts.hub, topics, self._event)

    def _event(self, topic: str) -> tuple[str, Any]:
        if topic == SCANS:
            found = self._parts.catalogue.all()
            looking = sum(scan.state == "looking" for scan in found)
            return "scans", {"scans": len(found), "looking": looking}
        job = self._parts.jobs.get(int(topic))
        if job is None:
            return "job", {"id": int(topic), "state": "forgotten"}
        return "job", self._values(job)

    async def upload(self, request: Request) -> Response:
        """Receive a file."""
        parts, name = self._parts, request.path_params["name"]
        key, length = request.headers.get("x-upload"), request.headers.get("content-length")
        upload = await run_in_threadpool(
            parts.uploads.begin, key, name, int(length) if length and length.isdecimal() else None
        )
        try:
            await parts.uploads.receive(upload, name, request.stream())
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it
        return JSONResponse({"id": upload.id}, 201)

    def finish_upload(self, request: Request) -> Response:
        """Have an upload looked at."""
        upload = self._parts.uploads.finish(request.path_params["id"])
        self._parts.catalogue.look(place_of(upload))
        return JSONResponse({"id": upload.id}, 202)

    def forget_upload(self, request: Request) -> Response:
        """Remove an upload."""
        key = request.path_params["id"]
        if self._parts.jobs.needs(key):
            raise ConflictError("upload: a job needs it; cancel that first")
        self._parts.uploads.forget(key)
        self._parts.catalogue.forget(key)
        return Response(status_code=204)

    async def add_job(self, request: Request) -> Response:
        """Queue a job."""
        options = from_mapping(JobOptions, await read_json(request))
        job = await run_in_threadpool(self._added, options)
        return JSONResponse(self._values(job), 201)

    def _added(self, options: JobOptions) -> Job:
        parts = self._parts
        scan = parts.catalogue.get(options.scan)
        if scan is None:
            raise MissingError(_NO_SCAN)
        options = _checked_options(options, scan, parts.facts)
        import_library()
        from restore_rwkv.apps.page.restoring import report_module
        from restore_rwkv.restoration import find_device

        if options.report:
            report_module()
        find_device(options.device)
        source = scan.source
        parts.state.require_room(source.room, scan.name)
        job = parts.jobs.add(options, scan.name, source, scan.place.upload)
        parts.hub.changed(str(job.id))
        parts.runner.wake()
        return job

    def job(self, request: Request) -> Response:
        """Answer with a job."""
        return JSONResponse(self._values(self._known(request)))

    def end_job(self, request: Request) -> Response:
        """Cancel a job that waits or runs, forget one that has ended."""
        parts, job = self._parts, self._known(request)
        if parts.runner.cancel(job.id):
            return JSONResponse(self._values(self._known(request)))
        if not parts.jobs.forget(job.id):
            raise ConflictError("job: has just ended; try again")
        shutil.rmtree(results_of(parts.state, job.id), ignore_errors=True)
        parts.hub.changed(str(job.id))
        return Response(status_code=204)

    def view(self, request: Request) -> Response:
        """Answer with an image for the viewer."""
        name = request.path_params["name"]
        if name not in VIEWS:
            raise HTTPException(404)
        return self._file(self._done(request), f"{name}.nii.gz", _GZIP)

    def map(self, request: Request) -> Response:
        """Answer with a map of the report for the viewer."""
        job, name = self._done(request), request.path_params["name"]
        if name not in [each["name"] for each in job.outputs["maps"]]:
            raise HTTPException(404)
        return self._file(job, f"maps/{name}.nii.gz", _GZIP)

    def record(self, request: Request) -> Response:
        """Answer with the record of the restored scan."""
        job = self._done(request)
        return self._file(job, job.outputs["record"], "application/json")

    def report(self, request: Request) -> Response:
        """Answer with the report, a page that can reach nothing but itself."""
        job = self._done(request)
        if job.outputs["report"] is None:
            raise MissingError("report: was not asked for; restore the scan again with a report")
        policy = {"Content-Security-Policy": REPORT_POLICY}
        return self._file(job, job.outputs["report"], _KINDS[".html"], policy)

    def download(self, request: Request) -> Response:
        """Answer with the restored scan and its record as an archive."""
        job, form = self._done(request), request.query_params.get("as", "nifti")
        folder = job.outputs["downloads"].get(form)
        if folder is None:
            reason = next(iter(job.outputs["notes"]), "the scan is not DICOM")
            raise MissingError(f"as: the scan cannot be had as {form[:10]!r}; {reason}")
        root = results_of(self._parts.state, job.id) / folder
        if not root.is_dir():
            raise MissingError(_NO_FILES)
        ascii_name = stem_of(job).encode("ascii", "replace").decode().replace("?", "_")
        headers = {"Content-Disposition": f'attachment; filename="{ascii_name}-{form}.zip"'}
        return StreamingResponse(zipped(root), media_type="application/zip", headers=headers)

    def _file(
        self, job: Job, name: str, kind: str, headers: dict[str, str] | None = None
    ) -> Response:
        path = results_of(self._parts.state, job.id) / name
        if not path.is_file():
            raise MissingError(_NO_FILES)
        return FileResponse(path, media_type=kind, headers=headers)

    def _values(self, job: Job) -> dict[str, Any]:
        progress = self._parts.runner.progress(job.id) if job.state == "running" else {}
        return job_values(job, progress, self._parts.words)

    def _known(self, request: Request) -> Job:
        number = request.path_params["id"]
        job = self._parts.jobs.get(number) if number < 2**63 else None
        if job is None:
            raise MissingError("job: is not there any more")
        return job

    def _done(self, request: Request) -> Job:
        job = self._known(request)
        if job.state != "done":
            raise ConflictError(f"job: is {job.state}, and has no results")
        return job


def place_of(upload: Upload) -> Place:
    """Return where the scans of an upload are looked for."""
    return Place(path=upload.path, upload=upload.id, name=upload.name)


def _checked_options(options: JobOptions, scan: Scan, facts: Facts) -> JobOptions:
    """Return options with the task of the scan; refuse what can be refused before a job waits."""
    if scan.state != "ready":
        raise ConflictError(scan.reason or f"{scan.name}: is still being looked at; wait for it")
    task = options.task
    if task == "auto":
        if scan.checked is None or scan.checked.task is None:
            raise ConfigError("task: nothing says what kind of scan this is; choose the task")
        task = scan.checked.task
    facts.check(task, options.weights)
    return dataclasses.replace(options, task=task)
