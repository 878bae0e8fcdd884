"""Workers on a Ray cluster: an engine whose actors come and go with the nodes.

Only jobs, progress and outcomes go through Ray, none above `ray_actor.LARGEST_OUTCOME`. Scans and
outputs are read and written by the nodes: from folders that all of them mount, or from URLs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from restore_rwkv.batch.engine import MOST_DEATHS, SLOTS, Ended, Event
from restore_rwkv.batch.job import Job, Outcome
from restore_rwkv.batch.pool import remove_partial
from restore_rwkv.batch.ray_actor import Begun, RayWorker, Terms
from restore_rwkv.batch.ray_cluster import Cluster, RayOptions, in_words, marked
from restore_rwkv.batch.worker import WorkerSettings
from restore_rwkv.errors import ConfigError

__all__ = ["RayEngine", "RayOptions"]

_SECONDS_WITHOUT_NODES = 120.0  # after which jobs are given up
_SECONDS_OF_FAILED_STARTS = 30.0  # after which they are no accident
_SECONDS_BETWEEN_LOOKS = 1.0  # at the nodes
_SECONDS_TO_END = 5.0
_SECONDS_OF_AN_ANSWER = 60.0  # that is ready; a node that is lost may take it along


@dataclass(eq=False)
class _Actor:
    """A worker and what it has.

    Attributes:
        handle: Ray's.
        begun: answer that is awaited while it starts.
        news: answer with its next events.
        jobs: that it has, by the answers that are awaited.
        process: host and process; empty while it starts.
        alone: whether it has one job only, whose worker died before.
    """

    handle: Any
    begun: Any
    news: Any = None
    jobs: dict[Any, Job] = field(default_factory=dict)
    process: str = ""
    alone: bool = False

    @property
    def awaited(self) -> list[Any]:
        """All answers that are awaited."""
        return [*([self.news] if self.process else [self.begun]), *self.jobs]


class RayEngine:
    """An engine of workers on a Ray cluster; see `Engine`.

    A worker or a node that is lost costs no scan: its jobs are tried again elsewhere, each on its
    own, and one that is lost `MOST_DEATHS` times on its own is given up. Actors belong to this
    process and end with it, also where it is killed.

    A cluster that is started here has no dashboard, sends no usage statistics, listens on the
    loopback interface, and takes a random token for this run, so that Ray does not write one into
    the home folder.

    Results are those of a local worker with as many threads, byte for byte: the order in which
    threads sum up shows in the last digits, as do processors with other instructions.

    Args:
        settings: how scans are restored; `threads` are `options.cpus`.
        options: where.

    Raises:
        ConfigError: Ray is not installed, the cluster is not reached, or no node has room for a
            worker.
        OSError: the folder of the outputs cannot be written to.
    """

    def __init__(self, settings: WorkerSettings, options: RayOptions | None = None) -> None:
        self._options = options or RayOptions()
        self._settings = dataclasses.replace(settings, threads=self._options.cpus)
        self._actors: list[_Actor] = []
        self._waiting: deque[Job] = deque()
        self._suspects: deque[Job] = deque()  # their worker died; each now runs on its own
        self._deaths: dict[str, int] = {}
        self._tries: dict[str, int] = {}
        self._failing_since: float | None = None
        self._looked, self._seen = 0.0, time.monotonic()
        self._mark: Path | None = None
        self._cluster = Cluster(self._options.address)
        self._ray = self._cluster.ray
        try:
            self._mark = marked(self._options.output)
            self._terms = Terms.of_this_process(
                None if self._mark is None else str(self._mark), self._options.memory
            )
            if not self._scale():
                raise ConfigError(
                    f"cluster: no node has {self._needs_in_words()} for a worker; start one that "
                    "has, or ask for less"
                )
        except BaseException:
            self.close()
            raise

    @property
    def room(self) -> int:
        """Number of further jobs that keep every worker busy."""
        held = sum(len(actor.jobs) for actor in self._actors)
        return max(0, SLOTS * len(self._actors) - held - len(self._waiting))

    def submit(self, job: Job) -> None:
        """Take a job; every job ends in exactly one `Ended`."""
        self._waiting.append(job)
        self._hand_out()

    def events(self, timeout: float) -> Iterator[Event]:
        """Give what has happened since the last call; wait up to `timeout` seconds for the first.

        Raises:
            ConfigError: the workers do not start, or a node is not like this machine.
        """
        yield from self._look_at_nodes()
        awaited = {answer: actor for actor in self._actors for answer in actor.awaited}
        if not awaited:
            time.sleep(timeout)
            return
        self._ray.wait([*awaited], num_returns=1, timeout=timeout)
        ready, _ = self._ray.wait([*awaited], num_returns=len(awaited), timeout=0)
        # News first: what is told of a job comes before its end.
        for answer in sorted(ready, key=lambda answer: answer in awaited[answer].jobs):
            if awaited[answer] in self._actors:
                yield from self._answered(awaited[answer], answer)
        self._hand_out()

    def close(self) -> None:
        """End the workers. Jobs that have not ended leave no output and no partial file.

        In a store they can leave files without a record, see `staged`.
        """
        running = {answer: job for actor in self._actors for answer, job in actor.jobs.items()}
        for actor in self._actors:
            self._kill(actor)
        self._actors.clear()
        if running:  # which fail once the processes have ended
            self._ray.wait([*running], num_returns=len(running), timeout=_SECONDS_TO_END)
        for job in running.values():
            remove_partial(job)
        if self._mark is not None:
            self._mark.unlink(missing_ok=True)
        self._cluster.disconnect()

    def __enter__(self) -> RayEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answered(self, actor: _Actor, answer: Any) -> Iterator[Event]:
        from ray.exceptions import RayError

        try:
            value = self._ray.get(answer, timeout=_SECONDS_OF_AN_ANSWER)
        except RayError as error:  # among them GetTimeoutError
            yield from self._lost(actor, error)
            return
        if isinstance(value, Begun):
            if value.error is not None:
                raise value.error
            actor.process, self._failing_since = value.process, None
            actor.news = actor.handle.news.remote()
        elif isinstance(value, Outcome):
            job = actor.jobs.pop(answer)
            actor.alone = actor.alone and bool(actor.jobs)
            yield self._ended(job, value)
        else:
            actor.news = actor.handle.news.remote()
            held = {job.key for job in actor.jobs.values()}
            yield from (event for event in value if event.key in held)

    def _ended(self, job: Job, outcome: Outcome) -> Ended:
        self._deaths.pop(job.key, None)
        lost = self._tries.pop(job.key, 0)
        return Ended(dataclasses.replace(outcome, attempts=outcome.attempts + lost))

    def _lost(self, actor: _Actor, error: Exception) -> Iterator[Event]:
        """Forget a worker that has died, and try its jobs again, each on its own."""
        self._kill(actor)
        self._actors.remove(actor)
        if not actor.process:
            self._failed_to_start(error)
        for job in actor.jobs.values():
            self._tries[job.key] = self._tries.get(job.key, 0) + 1
            self._deaths[job.key] = self._deaths.get(job.key, 0) + actor.alone
            if self._deaths[job.key] < MOST_DEATHS:
                self._suspects.append(job)
            else:
                yield self._ended(job, _given_up(job, actor.process, error))

    def _failed_to_start(self, error: Exception) -> None:
        """Raise ConfigError once no worker has started for long; nodes may just be ending."""
        now = time.monotonic()
        self._failing_since = self._failing_since or now
        at_work = any(actor.process for actor in self._actors)
        if now - self._failing_since > _SECONDS_OF_FAILED_STARTS and not at_work:
            raise ConfigError(
                f"cluster: workers end while they start ({in_words(error)}); check that every "
                "node has this version of restore-rwkv, and enough memory"
            )

    def _look_at_nodes(self) -> Iterator[Event]:
        """Use nodes that have come; give up all jobs where none has been left for long."""
        now = time.monotonic()
        if now - self._looked < _SECONDS_BETWEEN_LOOKS:
            return
        self._looked = now
        if self._scale():
            self._seen = now
        elif now - self._seen > _SECONDS_WITHOUT_NODES:
            for job in (*self._suspects, *self._waiting):
                yield self._ended(job, _without_nodes(job))
            self._suspects.clear()
            self._waiting.clear()

    def _scale(self) -> int:
        """Start as many workers as there is room for, or as were asked for; return the room."""
        room = sum(self._places(node) for node in self._ray.nodes() if node["Alive"])
        for _ in range(len(self._actors), min(room, self._options.workers or room)):
            handle = self._class().remote(self._settings, self._terms)
            self._actors.append(_Actor(handle, handle.begin.remote()))
        return room

    def _class(self) -> Any:
        options = self._options
        return self._ray.remote(
            num_cpus=options.cpus,
            num_gpus=self._gpus,
            memory=options.memory,
            max_concurrency=SLOTS + 1,  # and `news`
            max_restarts=0,
            max_task_retries=0,
        )(RayWorker)

    def _places(self, node: dict[str, Any]) -> int:
        """Number of workers that a node has room for, if nobody else uses it."""
        needs = {"CPU": self._options.cpus, "GPU": self._gpus, "memory": self._options.memory or 0}
        has = node["Resources"]
        return min(int(has.get(name, 0) / need) for name, need in needs.items() if need)

    @property
    def _gpus(self) -> float:
        return self._options.gpus or float(self._settings.device.startswith("cuda"))

    def _needs_in_words(self) -> str:
        gpus = f", {self._gpus:g} GPUs" * bool(self._gpus)
        memory = self._options.memory
        return f"{self._options.cpus} CPUs{gpus}" + (
            f" and {memory / 2**30:.1f} GiB of memory" if memory else ""
        )

    def _hand_out(self) -> None:
        ready = [actor for actor in self._actors if actor.process]
        for actor in ready:
            if self._suspects and not actor.jobs:
                actor.alone = True
                self._send(actor, self._suspects.popleft())
        by_load = sorted(ready, key=lambda actor: len(actor.jobs))
        for slots in range(1, SLOTS + 1):  # the first job of each before the second of any
            for actor in by_load:
                if self._waiting and not actor.alone and len(actor.jobs) < slots:
                    self._send(actor, self._waiting.popleft())

    def _send(self, actor: _Actor, job: Job) -> None:
        actor.jobs[actor.handle.run.remote(job)] = job

    def _kill(self, actor: _Actor) -> None:
        with contextlib.suppress(Exception):  # Ray may not know it any more
            self._ray.kill(actor.handle)


def _given_up(job: Job, process: str, error: Exception) -> Outcome:
    return Outcome(
        key=job.key,
        state="failed",
        kind="system",
        reason=f"{job.name}: ends its worker ({in_words(error)}); free memory, or restore it on "
        "its own",
        bytes_read=job.size,
        attempts=0,
        worker=process,
    )


def _without_nodes(job: Job) -> Outcome:
    return Outcome(
        key=job.key,
        state="failed",
        kind="system",
        reason=f"{job.name}: no node of the cluster is left; start one, and resume",
        bytes_read=job.size,
        attempts=0,
    )
