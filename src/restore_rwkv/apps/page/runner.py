"""The thread that restores the jobs, one after the other."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore_rwkv.apps.page.catalogue import import_library
from restore_rwkv.apps.page.jobs import Job, Jobs, State
from restore_rwkv.apps.page.state import StateFolder
from restore_rwkv.apps.progress import CancelledError, JobProgress
from restore_rwkv.apps.words import Words
from restore_rwkv.errors import kind_of_error

if TYPE_CHECKING:
    from restore_rwkv.apps.page.restoring import KeepingRestorer

_logger = logging.getLogger(__name__)
_FAULT_SECONDS = 2.0  # between two tries after the disk failed
_MOST_RESTORERS = 4  # whose weights stay in memory


class Runner:
    """Takes jobs from the queue and restores them.

    Args:
        jobs: the queue.
        state: folder of the page.
        device: where networks run unless a job says otherwise.
        words: for errors.
        changed: called with the number of a job whenever something about it has changed.
    """

    def __init__(
        self,
        jobs: Jobs,
        state: StateFolder,
        device: str,
        words: Words,
        changed: Callable[[int], None],
    ) -> None:
        self._jobs, self._state, self._device = jobs, state, device
        self._words, self._changed = words, changed
        self._lock = threading.Lock()
        self._current: tuple[int, JobProgress] | None = None
        self._stopped = threading.Event()
        self._wake = threading.Event()
        self._restorers: dict[tuple[str, str | None, str], KeepingRestorer] = {}
        self._thread = threading.Thread(target=self._work, name="restoring", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Say that a job was queued."""
        self._wake.set()

    def stop(self, seconds: float) -> None:
        """Stop the job that runs, which is queued again, and wait for it for so long."""
        self._stopped.set()
        self._wake.set()
        with self._lock:
            if self._current is not None:
                self._current[1].cancelled.set()
        self._thread.join(seconds)

    def cancel(self, number: int) -> bool:
        """Stop a job within a slice; return whether it was waiting or running."""
        with self._lock:  # within which no job begins
            if self._current is not None and self._current[0] == number:
                self._current[1].cancelled.set()
                return True
            cancelled = self._jobs.cancel_waiting(number)
        if cancelled:
            self._changed(number)
        return cancelled

    def progress(self, number: int) -> dict[str, Any]:
        """Return stage, numbers and seconds left of a job; empty unless it runs."""
        current = self._current
        return {} if current is None or current[0] != number else current[1].values()

    def _work(self) -> None:
        while not self._stopped.is_set():
            try:
                job = self._begin()
            except OSError as error:
                _logger.error("jobs cannot be taken now: %s", self._words.error(error))
                self._stopped.wait(_FAULT_SECONDS)
                continue
            if job is None:
                self._wake.wait()
                self._wake.clear()
                continue
            self._run(job)

    def _begin(self) -> Job | None:
        with self._lock:
            if self._stopped.is_set():
                return None
            job = self._jobs.claim()
            if job is not None:
                number = job.id
                self._current = (number, JobProgress(lambda: self._changed(number)))
        return job

    def _run(self, job: Job) -> None:
        assert self._current is not None
        progress = self._current[1]
        self._changed(job.id)
        state: State = "failed"
        error, outputs = "", None
        try:
            outputs = self._restored(job, progress)
            state = "done"
        except CancelledError:
            state = "cancelled"
        except Exception as fault:
            error = self._words.error(fault)
            if kind_of_error(fault) == "bug":
                _logger.error("job %d: %s", job.id, error)
        if state != "done":
            shutil.rmtree(results_of(self._state, job.id), ignore_errors=True)
        self._note(job, state, error, outputs)
        with self._lock:
            self._current = None
        self._changed(job.id)

    def _restored(self, job: Job, progress: JobProgress) -> dict[str, Any]:
        import_library()
        from restore_rwkv.apps.page.restoring import restore_scan

        folder = results_of(self._state, job.id)
        shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
        self._state.require_room(job.source.room, job.name)
        folder.mkdir(mode=0o700)
        return restore_scan(job, folder, self._restorer(job), progress)

    def _restorer(self, job: Job) -> KeepingRestorer:
        from restore_rwkv.apps.page.restoring import KeepingRestorer

        options = job.options
        device = self._device if options.device == "auto" else options.device
        key = (options.task, options.weights, device)
        if key not in self._restorers:
            if len(self._restorers) == _MOST_RESTORERS:
                del self._restorers[next(iter(self._restorers))]
            self._restorers[key] = KeepingRestorer(*key)
        return self._restorers[key]

    def _note(self, job: Job, state: State, error: str, outputs: dict[str, Any] | None) -> None:
        """Note what came of a job; where the disk fails, try until the page is stopped."""
        while True:
            try:
                if state == "cancelled" and self._stopped.is_set():
                    self._jobs.put_back(job.id)
                else:
                    self._jobs.settle(job.id, state, error, outputs)
                return
            except OSError as fault:
                _logger.error("job %d: cannot be noted: %s", job.id, self._words.error(fault))
                if self._stopped.wait(_FAULT_SECONDS):
                    return


def remove_strangers(jobs: Jobs, state: StateFolder) -> None:
    """Remove results of jobs that are not done: of a process that was killed meanwhile."""
    done = {str(job.id) for job in jobs.all() if job.state == "done"}
    for folder in state.results.iterdir():
        if folder.name not in done:
            shutil.rmtree(folder, ignore_errors=True)


def results_of(state: StateFolder, number: int) -> Path:
    """Return the folder of what a job wrote."""
    return state.results / str(number)
