"""Workers on a Ray cluster of two nodes on this machine, of which a worker and a node are lost."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydicom import dcmread

from restore_rwkv.batch import (
    BatchRequest,
    Ended,
    Job,
    Outcome,
    Progressed,
    Started,
    Summary,
    Worker,
    WorkerSettings,
    find_jobs,
    ray_actor,
    ray_engine,
    run_batch,
)
from restore_rwkv.batch.ray_actor import LARGEST_OUTCOME, RayWorker, Terms, bounded
from restore_rwkv.batch.ray_engine import RayEngine, RayOptions
from restore_rwkv.errors import ConfigError
from restore_rwkv.restoration import RestoreOptions
from tests.helpers.derivable_series import write_source
from tests.helpers.source_trees import blob, save_nifti

# Of Ray's own processes, which it does not wait for.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
_STORE = 100 << 20  # bytes
VOLUMES = 12


def settings_of(weights: Path) -> WorkerSettings:
    options = RestoreOptions(force=True)
    return WorkerSettings(task="mri-sr", weights=str(weights), device="cpu", options=options)


@pytest.fixture
def settings(tiny_weights: Path) -> WorkerSettings:
    return settings_of(tiny_weights)


@contextmanager
def cluster_of(home: Path, nodes: int) -> Iterator[Any]:
    """A cluster whose nodes have two CPUs each; the first only schedules."""
    before = dict(os.environ)
    os.environ |= {
        "HOME": str(home),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_TMPDIR": tempfile.mkdtemp(prefix="ray-", dir="/tmp"),
    }
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "object_store_memory": _STORE,
            "include_dashboard": False,
            "_system_config": {  # a lost node is noticed within some seconds
                "health_check_initial_delay_ms": 0,
                "health_check_period_ms": 1000,
                "health_check_failure_threshold": 3,
            },
        },
    )
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=2, object_store_memory=_STORE)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()
        shutil.rmtree(os.environ["RAY_TMPDIR"], ignore_errors=True)
        os.environ.clear()
        os.environ.update(before)


def _raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def write_tree(tree: Path) -> Path:
    for k in range(VOLUMES):
        save_nifti(tree / f"sub-{k:02}" / "t1.nii.gz", blob(32, 32, 6, seed=k))
    write_source(tree / "knee", "MR")
    (tree / "damaged.nii").write_bytes(b"not an image")
    return tree


class Listener:
    """Notes what a batch tells, and does something after some ends."""

    def __init__(self, **after: Any) -> None:
        self.ends: Counter[str] = Counter()
        self.outcomes: dict[str, Outcome] = {}
        self._after = {int(name.removeprefix("n")): action for name, action in after.items()}

    def found(self, number: int) -> None: ...

    def begun(self, waiting: int, finished: int) -> None: ...

    def started(self, job: Job) -> None: ...

    def progressed(self, job: Job, news: Progressed) -> None: ...

    def waited(self) -> None: ...

    def ended(self, job: Job, outcome: Outcome) -> None:
        self.ends[job.name] += 1
        self.outcomes[job.name] = outcome
        action = self._after.pop(sum(self.ends.values()), None)
        if action is not None:
            action(outcome)


def run(
    tree: Path, output: Path, settings: WorkerSettings, options: RayOptions, listener: Listener
) -> Summary:
    return run_batch(
        BatchRequest(output=output, settings=settings),
        lambda: find_jobs([tree], output),
        lambda: RayEngine(settings, options),
        listener,
    )


def assert_same_as_here(tree: Path, output: Path, settings: WorkerSettings, here: Path) -> None:
    """Every output is that of a run in this process."""
    worker = Worker(settings)
    for found in find_jobs([tree], here):
        if worker.run(found.job).is_fault:
            continue
        mine = Path(found.job.target)
        other = output / mine.relative_to(here)
        if found.job.is_series:
            assert [file.name for file in sorted(other.iterdir())] == [
                file.name for file in sorted(mine.iterdir())
            ]
            for file in mine.iterdir():
                assert dcmread(file).PixelData == dcmread(other / file.name).PixelData
        else:
            assert mine.read_bytes() == other.read_bytes()
    names = {path.relative_to(here) for path in here.rglob("*")}
    assert names == {
        path.relative_to(output) for path in output.rglob("*") if path.suffix != ".sqlite"
    }


@pytest.mark.slow
def test_a_killed_worker_and_a_lost_node_cost_no_scan(
    settings: WorkerSettings, tmp_path: Path
) -> None:
    tree = write_tree(tmp_path / "tree")
    (tmp_path / "home").mkdir()
    killed: list[int] = []
    removed: list[int] = []
    with cluster_of(tmp_path / "home", 2) as cluster:

        def kill_worker(outcome: Outcome) -> None:
            killed.append(int(outcome.worker.rpartition(":")[2]))
            os.kill(killed[0], signal.SIGKILL)

        def remove_node(outcome: Outcome) -> None:
            """Remove the node of a worker that has further scans."""
            above = psutil.Process(int(outcome.worker.rpartition(":")[2])).ppid()
            (node,) = (node for node in cluster.worker_nodes if _raylet(node) == above)
            cluster.remove_node(node, allow_graceful=False)
            removed.append(above)

        listener = Listener(n3=kill_worker, n6=remove_node)
        options = RayOptions(address=cluster.address, output=tmp_path / "out")
        summary = run(tree, tmp_path / "out", settings, options, listener)
    assert len(killed) == len(removed) == 1
    assert set(listener.ends.values()) == {1}
    # What a worker had written when it was killed is found done by the next one.
    restored = summary.counts["done"] + summary.counts["skipped"]
    assert (restored, summary.counts["refused"]) == (VOLUMES + 1, 1)
    assert any(outcome.attempts > 1 for outcome in listener.outcomes.values())
    assert_same_as_here(tree, tmp_path / "out", settings, tmp_path / "here")
    assert not [path for path in (tmp_path / "home").rglob("*") if "token" in path.name]


@pytest.mark.slow
def test_a_cluster_of_this_machine_starts_quietly_and_leaves_nothing(
    tiny_weights: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    for k in range(3):
        save_nifti(tree / f"{k}.nii.gz", blob(32, 32, 4, seed=k))
    (tmp_path / "home").mkdir()
    program = (
        "import sys; from pathlib import Path; from tests.batch.test_ray import *\n"
        "weights, tree, output = map(Path, sys.argv[1:])\n"
        "options = RayOptions(workers=1, output=output)\n"
        "listener = Listener()\n"
        "summary = run(tree, output, settings_of(weights), options, listener)\n"
        "assert summary.counts['done'] == 3, listener.outcomes\n"
    )
    arguments = [str(path) for path in (tiny_weights, tree, tmp_path / "out")]
    environment = {**os.environ, "HOME": str(tmp_path / "home")}
    environment.pop("RAY_ADDRESS", None)
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert not list((tmp_path / "home").iterdir())
    assert not _of_ray(tmp_path / "home")
    assert not list((tmp_path / "out").glob(".restore*"))


@pytest.mark.slow
def test_a_scan_that_ends_its_worker_is_given_up_and_the_others_are_restored(
    settings: WorkerSettings, tmp_path: Path
) -> None:
    """Also a worker whose node has another version, or does not see the folder, is refused."""
    (tmp_path / "home").mkdir()
    jobs = [_job(tmp_path, k) for k in range(4)]
    with cluster_of(tmp_path / "home", 1) as cluster:
        options = RayOptions(address=cluster.address, output=tmp_path / "out", workers=1)
        with RayEngine(settings, options) as engine:
            for job in jobs:
                engine.submit(job)
            outcomes: dict[str, Outcome] = {}
            started: list[str] = []
            end = time.monotonic() + 240
            while len(outcomes) < len(jobs):
                assert time.monotonic() < end, (outcomes, started)
                for event in engine.events(0.2):
                    if isinstance(event, Started):
                        started.append(event.key)
                        if event.key == jobs[1].key:
                            _kill_workers_of(engine)
                    elif isinstance(event, Ended):
                        assert event.outcome.key not in outcomes
                        outcomes[event.outcome.key] = event.outcome
            assert engine.room == 3
        states = {job.name: outcomes[job.key].state for job in jobs}
        assert states == {"0": "done", "1": "failed", "2": "done", "3": "done"}
        lost = outcomes[jobs[1].key]
        assert "ends its worker" in lost.reason
        assert "\n" not in lost.reason
        assert lost.attempts in (2, 3)  # on its own twice, and perhaps once with others
        _refuses_other_nodes(settings, options)
        _uses_new_nodes_and_gives_up_without_any(cluster, settings, options, jobs[0])


def _refuses_other_nodes(settings: WorkerSettings, options: RayOptions) -> None:
    with RayEngine(settings, options) as engine:
        engine._terms = dataclasses.replace(engine._terms, torch="1.0")
        _restart(engine)
        with pytest.raises(ConfigError, match=r"has torch .* and the batch 1\.0"):
            _wait(engine)
    with pytest.raises(ConfigError, match="no node has 64 CPUs"):
        RayEngine(settings, dataclasses.replace(options, cpus=64))


def _uses_new_nodes_and_gives_up_without_any(
    cluster: Any, settings: WorkerSettings, options: RayOptions, job: Job
) -> None:
    with (
        pytest.MonkeyPatch.context() as patch,
        RayEngine(settings, dataclasses.replace(options, workers=0)) as engine,
    ):
        assert len(engine._actors) == 2
        cluster.add_node(num_cpus=2, object_store_memory=_STORE)
        _wait(engine, lambda: sum(bool(actor.process) for actor in engine._actors) == 4)
        for node in [*cluster.worker_nodes]:
            cluster.remove_node(node, allow_graceful=False)
        # A worker outlives its node for a moment, in which it would still take the job.
        _wait(engine, lambda: not any(actor.process for actor in engine._actors))
        patch.setattr(ray_engine, "_SECONDS_WITHOUT_NODES", 1.0)
        engine.submit(job)
        (outcome,) = _wait(engine, lambda: False, ends=1)
        assert (outcome.state, outcome.kind) == ("failed", "system")
        assert "no node of the cluster is left" in outcome.reason


def _restart(engine: RayEngine) -> None:
    for actor in engine._actors:
        engine._kill(actor)
    engine._actors.clear()
    engine._scale()


def _wait(
    engine: RayEngine, until: Callable[[], bool] = lambda: False, ends: int = 99
) -> list[Outcome]:
    """Outcomes until something holds, or as many have come."""
    outcomes: list[Outcome] = []
    end = time.monotonic() + 60
    while time.monotonic() < end and not until() and len(outcomes) < ends:
        outcomes += [e.outcome for e in engine.events(0.5) if isinstance(e, Ended)]
    assert time.monotonic() < end
    return outcomes


def _kill_workers_of(engine: RayEngine) -> None:
    for actor in engine._actors:
        if actor.process:
            os.kill(int(actor.process.rpartition(":")[2]), signal.SIGKILL)


def _job(folder: Path, k: int) -> Job:
    source = save_nifti(folder / "tree" / f"{k}.nii.gz", blob(32, 32, 4, seed=k))
    target = folder / "out" / source.name
    return Job(key=f"{k:016x}", name=str(k), source=str(source), target=str(target))


def _of_ray(home: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("HOME") == str(home):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_outcomes_on_their_way_are_bounded() -> None:
    record = {"task": "mri-sr", "source_files": {f"{k:064}": f"{k:064}" for k in range(20_000)}}
    small = Outcome(key="k", state="done", thumbnail=b"p" * 1000, record={"task": "mri-sr"})
    assert bounded(small) is small
    picture = dataclasses.replace(small, thumbnail=bytes(2 * LARGEST_OUTCOME))
    assert bounded(picture) == dataclasses.replace(small, thumbnail=None)
    large = bounded(dataclasses.replace(picture, record=record, details="x" * 10 * LARGEST_OUTCOME))
    assert large.record == {"task": "mri-sr"}
    assert ray_actor._size(large) <= LARGEST_OUTCOME


def test_a_node_that_does_not_see_a_scan_or_the_folder_says_so(
    settings: WorkerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_actor, "_SECONDS_TO_SEE", 0.1)
    terms = Terms.of_this_process(str(tmp_path / "gone" / ".mark"), None)
    begun = RayWorker(settings, terms).begin()
    assert begun.error is not None
    assert "does not see" in str(begun.error)
    worker = RayWorker(settings, Terms.of_this_process(None, None))
    assert worker.begin().error is None
    job = dataclasses.replace(_job(tmp_path, 1), source=str(tmp_path / "none.nii.gz"))
    outcome = worker.run(job)
    assert (outcome.state, outcome.kind) == ("failed", "system")
    assert "is not there on" in outcome.reason


def test_a_worker_takes_no_more_memory_than_it_may(
    settings: WorkerSettings, tmp_path: Path
) -> None:
    worker = RayWorker(settings, Terms.of_this_process(None, 1000))
    assert worker.begin().error is None
    outcome = worker.run(_job(tmp_path, 1))
    assert (outcome.state, outcome.kind) == ("failed", "system")
    assert outcome.reason.startswith("memory: the scan takes")


def test_only_the_last_progress_of_a_stage_is_kept_for_whoever_asks(
    settings: WorkerSettings,
) -> None:
    worker = RayWorker(settings, Terms.of_this_process(None, None))
    worker.tell(Started("a"))
    for done in range(100):
        worker.tell(Progressed("a", "restoring", done, 100))
    worker.tell(Progressed("b", "restoring", 1, 2))
    assert worker.news() == [
        Started("a"),
        Progressed("a", "restoring", 99, 100),
        Progressed("b", "restoring", 1, 2),
    ]


def test_impossible_workers_and_a_missing_ray_are_refused(
    settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="at least 1 CPU"):
        RayOptions(cpus=0)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'restore-rwkv\[ray\]'"):
        RayEngine(settings)


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_an_address_where_nothing_answers_is_told_at_once(
    settings: WorkerSettings, address: str
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(ConfigError, match="nothing answers there"):
        RayEngine(settings, RayOptions(address=address.format(port)))
    assert time.monotonic() - began < 10
