"""Processes for tests of the local pool: workers with faults, workers that keep a log, a parent."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing.connection import Connection
from typing import Any

from restore_rwkv.batch import Job, Outcome, Pool, Worker, WorkerSettings
from restore_rwkv.batch.process import serve
from restore_rwkv.batch.worker import _Turns


def crashing(connection: Connection, settings: WorkerSettings, slots: int) -> None:
    """A worker that some scans end, by their names."""
    whole = Worker.run

    def run(self: Worker, job: Job, progress: Any = None) -> Outcome:
        if job.name == "abort.nii":
            os.abort()
        if job.name == "kill.nii":
            os.kill(os.getpid(), signal.SIGKILL)
        if job.name == "leave.nii":
            raise SystemExit(3)
        if job.name == "a.nii":
            time.sleep(0.5)  # it is still there when the next one aborts
        return whole(self, job, progress)

    Worker.run = run  # type: ignore[method-assign]
    serve(connection, settings, slots)


def logging(connection: Connection, settings: WorkerSettings, slots: int) -> None:
    """A worker that notes when it reads, runs and writes, in a file that the environment names."""
    from restore_rwkv.restoration import file, restorer

    log = os.open(os.environ["BATCH_TEST_LOG"], os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def noted(function: Any, before: str = "", after: str = "") -> Any:
        def call(*words: Any, **more: Any) -> Any:
            os.write(log, f"{before} ".encode())
            result = function(*words, **more)
            os.write(log, f"{after} ".encode())
            return result

        return call

    def slowly(*words: Any, **more: Any) -> Any:
        time.sleep(0.2)
        return run_plan(*words, **more)

    run_plan = restorer.Restorer.run_plan
    restorer.Restorer.run_plan = noted(slowly, "run", "ran")  # type: ignore[method-assign]
    restorer.load_inference = noted(restorer.load_inference, "weights")  # type: ignore[attr-defined]
    file.read_volumes = noted(file.read_volumes, "", "read")  # type: ignore[attr-defined]
    Worker.run = noted(Worker.run, "", "written")  # type: ignore[method-assign]
    assert issubclass(_Turns, restorer.Restorer)
    serve(connection, settings, slots)


def parent(connection: Connection, settings: WorkerSettings) -> None:
    """A process with a pool, which says the number of its worker and then waits."""
    with Pool(settings, 1) as pool:
        while not pool._workers[0].ready:
            list(pool.events(1))
        connection.send(pool._workers[0].process.pid)
        time.sleep(60)
