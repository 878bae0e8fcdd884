"""Local workers: who gets which scan, what a death costs, and who may take how much memory."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from restore_rwkv.batch import Ended, Outcome, Pool, Progressed, Started
from restore_rwkv.batch.process import Answer, Ask, GiveBack, Ready, Refusal, Stop
from restore_rwkv.errors import ConfigError, WeightsError
from tests.helpers import batch_workers
from tests.helpers.batches import PlayedPool, job, job_of, scan, settings

GIB = 1 << 30


@pytest.fixture
def pool() -> Iterator[PlayedPool]:
    with PlayedPool() as pool:
        pool.played[0].say(Ready())
        assert pool.news() == []
        yield pool


def done(key: str, attempts: int = 1) -> Ended:
    return Ended(Outcome(key=key, state="done", attempts=attempts))


def test_a_worker_has_three_scans_at_a_time(pool: PlayedPool) -> None:
    assert pool.room == 3
    jobs = [job(name) for name in "abcde"]
    for one in jobs:
        pool.submit(one)
    (worker,) = pool.played
    assert worker.heard() == jobs[:3]
    assert pool.room == 0
    worker.say(Started("a"), Progressed("a", "restoring", 1, 2), done("a"))
    assert pool.news() == [Started("a"), Progressed("a", "restoring", 1, 2), done("a")]
    assert worker.heard() == jobs[3:4]


def test_every_worker_has_a_scan_before_any_has_two() -> None:
    with PlayedPool(jobs=2) as pool:
        for name in "abc":
            pool.submit(job(name))
        first, second = ([one.name for one in worker.heard()] for worker in pool.played)
        assert sorted([first, second], key=len) == [["b"], ["a", "c"]]


def test_a_death_costs_no_other_scan_of_the_worker(pool: PlayedPool) -> None:
    """Each is tried again, alone; the one that ends a worker for the second time has failed."""
    for name in "abc":
        pool.submit(job(name))
    pool.played[0].say(Started("a"))
    pool.news()
    pool.played[0].die()
    assert pool.news() == []
    attempts = {}
    for number, name in enumerate("abc", start=1):
        worker = pool.played[-1]
        if number == 1:
            worker.say(Ready())
        (one,) = worker.heard()
        assert one.name == name
        pool.submit(job(f"other {name}"))
        if name != "b":
            worker.say(done(name))
            (event,) = pool.news()
        else:
            worker.say(Ready())
            pool.news()
            worker.die(-11)
            (event,) = pool.news()
            pool.played[-1].say(Ready())
        assert isinstance(event, Ended)
        attempts[name] = (event.outcome.state, event.outcome.attempts)
    assert attempts == {"a": ("done", 2), "b": ("failed", 2), "c": ("done", 2)}
    assert sorted(one.name for one in pool.played[-1].heard()) == ["other a", "other b", "other c"]


def test_the_reason_of_a_death_is_told(pool: PlayedPool) -> None:
    pool.submit(job("a"))
    pool.news()
    pool.played[0].die(-11)
    pool.news()
    pool.played[1].say(Ready())
    pool.news()
    pool.played[1].die(-9)
    (event,) = pool.news()
    assert isinstance(event, Ended)
    assert event.outcome.kind == "system"
    assert event.outcome.reason.startswith("a: ends its worker (signal 9, as a rule because memory")
    assert event.outcome.worker.endswith(":1001")


def test_suspects_are_tried_though_other_scans_never_end(pool: PlayedPool) -> None:
    pool.submit(job("a"))
    pool.news()
    pool.played[0].die()
    pool.news()
    worker, number = pool.played[-1], 0
    worker.say(Ready())
    order = []
    while number < 20 and "a" not in order:
        for _ in range(pool.room):
            pool.submit(job(f"b{number}"))
            number += 1
        for one in worker.heard():
            order.append(one.name)
            worker.say(done(one.name))
        pool.news()
    assert "a" in order


def test_what_was_said_before_a_death_counts(pool: PlayedPool) -> None:
    pool.submit(job("a"))
    pool.submit(job("b"))
    pool.news()
    pool.played[0].say(done("a"))
    pool.played[0].die()
    assert pool.news() == [done("a")]
    assert [one.name for one in pool.played[-1].heard()] == ["b"]


def test_memory_is_granted_up_to_the_bound_and_in_order() -> None:
    with PlayedPool(jobs=3, memory=4 * GIB) as pool:
        one, two, three = pool.played
        one.say(Ask(3 * GIB))
        pool.news()
        two.say(Ask(2 * GIB))
        pool.news()
        three.say(Ask(GIB))  # would fit, but the second would never get its turn
        pool.news()
        assert one.heard() == [Answer(True, 3 * GIB, 4 * GIB)]
        assert (two.heard(), three.heard()) == ([], [])
        one.say(GiveBack())
        pool.news()
        assert two.heard() == [Answer(True, 2 * GIB, 4 * GIB)]
        assert three.heard() == [Answer(True, GIB, 4 * GIB)]


def test_no_more_scans_are_read_than_memory_holds() -> None:
    pool = PlayedPool(jobs=2, memory=600)
    for key, size in (("a", 500), ("b", 10), ("c", 60), ("d", 40), ("e", 1)):
        pool.submit(job(key, size=size))
    first, second = pool.played
    assert [one.key for one in first.heard()] == ["a"]  # alone, as it is too large for both
    assert second.heard() == []
    first.say(Ready(), done("a"))
    pool.news()
    assert {one.key for worker in pool.played for one in worker.heard()} == {"b", "c"}
    first.say(done("b"))
    pool.news()
    assert {one.key for worker in pool.played for one in worker.heard()} == {"d"}
    pool.close()


def test_what_exceeds_all_memory_is_refused_at_once() -> None:
    with PlayedPool(jobs=2, memory=4 * GIB) as pool:
        one, two = pool.played
        one.say(Ask(3 * GIB))
        pool.news()
        two.say(Ask(5 * GIB))
        pool.news()
        assert two.heard() == [Answer(False, 5 * GIB, 4 * GIB)]


def test_without_a_bound_everything_is_granted(pool: PlayedPool) -> None:
    pool.played[0].say(Ask(1 << 60))
    pool.news()
    assert pool.played[0].heard() == [Answer(True, 1 << 60, 0)]


def test_a_death_frees_what_was_granted_and_what_was_asked() -> None:
    with PlayedPool(jobs=3, memory=4 * GIB) as pool:
        one, two, three = pool.played
        for worker, size in ((one, 3), (two, 4), (three, 2)):
            worker.say(Ready(), Ask(size * GIB))
            pool.news()
        two.die()
        pool.news()
        assert three.heard() == []
        one.die()
        pool.news()
        assert three.heard() == [Answer(True, 2 * GIB, 4 * GIB)]


def test_the_sum_of_what_is_granted_never_exceeds_the_bound() -> None:
    import random

    random.seed(0)
    with PlayedPool(jobs=4, memory=10) as pool:
        holding = {worker.pid: 0 for worker in pool.played}
        asking: set[int] = set()
        for _ in range(400):
            worker = random.choice(pool.played)
            if holding[worker.pid]:
                worker.say(GiveBack())
                holding[worker.pid] = 0
            elif worker.pid not in asking:
                worker.say(Ask(random.randint(1, 12)))
                asking.add(worker.pid)
            pool.news()
            for other in pool.played:
                for answer in other.heard():
                    holding[other.pid] = answer.size * answer.granted
                    asking.discard(other.pid)
            assert sum(holding.values()) <= 10


def test_settings_that_cannot_be_used_end_the_batch(pool: PlayedPool) -> None:
    pool.played[0].say(Refusal(WeightsError("w.safetensors: damaged; copy it again")))
    with pytest.raises(WeightsError, match="damaged"):
        pool.news()


def test_workers_that_never_start_end_the_batch(pool: PlayedPool) -> None:
    pool.submit(job("a"))
    for _ in range(3):
        pool.played[-1].die(1)
        pool.news()
    pool.played[-1].die(1)
    with pytest.raises(ConfigError, match="end while they start"):
        pool.news()


def test_a_scan_is_not_to_blame_for_a_worker_that_did_not_start() -> None:
    with PlayedPool() as pool:
        pool.submit(job("a"))
        pool.played[0].die()
        pool.news()
        pool.played[1].say(Ready(), done("a"))
        assert pool.news() == [done("a")]


def test_a_pool_has_a_worker_at_least() -> None:
    with pytest.raises(ConfigError, match="jobs is 0; give at least 1"):
        PlayedPool(jobs=0)


def test_idle_workers_are_told_to_stop_and_busy_ones_are_ended() -> None:
    pool = PlayedPool(jobs=2)
    for worker in pool.played:
        worker.say(Ready())
    pool.submit(job("a"))
    pool.news()
    heard = [worker.heard() for worker in pool.played]
    assert sum(map(len, heard)) == 1
    pool.close()
    assert all(worker.exitcode == -15 for worker in pool.played)


@pytest.mark.slow
def test_a_scan_that_ends_its_worker_costs_only_itself(tiny_weights: Path, tmp_path: Path) -> None:
    """Aborted as by a fault in C, killed, and left by an error that no one foresaw."""
    names = ["a.nii", "abort.nii", "b.nii", "kill.nii", "c.nii", "leave.nii", "d.nii"]
    sources = [scan(tmp_path / "in" / name, seed) for seed, name in enumerate(names)]
    out = tmp_path / "out"
    outcomes: dict[str, Outcome] = {}
    weights = settings(tiny_weights)
    with Pool(weights, 1, main=batch_workers.crashing) as pool:
        for source in sources:
            pool.submit(job_of(source, out / source.name))
        while len(outcomes) < len(names):
            for event in pool.events(5):
                if isinstance(event, Ended):
                    assert event.outcome.key not in outcomes
                    outcomes[event.outcome.key] = event.outcome
    for name in names:
        bad = name in ("abort.nii", "kill.nii", "leave.nii")
        assert outcomes[name].state == ("failed" if bad else "done"), outcomes[name].reason
    assert "signal 6" in outcomes["abort.nii"].reason
    assert "signal 9" in outcomes["kill.nii"].reason
    assert "exit code 1" in outcomes["leave.nii"].reason
    assert outcomes["a.nii"].attempts == 2  # it was in the worker with the first
    assert outcomes["d.nii"].attempts <= 2
    assert {path.name for path in out.iterdir()} == {
        *("a.nii", "b.nii", "c.nii", "d.nii"),
        *(f"{letter}.restoration.json" for letter in "abcd"),
    }


@pytest.mark.slow
def test_weights_are_read_once_and_work_overlaps(tiny_weights: Path, tmp_path: Path) -> None:
    """The next scan is read, and the last one written, while the network runs."""
    log = tmp_path / "log"
    sources = [scan(tmp_path / f"{letter}.nii", seed) for seed, letter in enumerate("abcdef")]
    weights = settings(tiny_weights, task="mri-sr", threads=1)
    os.environ["BATCH_TEST_LOG"] = str(log)
    try:
        with Pool(weights, 1, main=batch_workers.logging) as pool:
            left = len(sources)
            for source in sources:
                pool.submit(job_of(source, tmp_path / "out" / source.name))
            while left:
                left -= sum(isinstance(event, Ended) for event in pool.events(5))
    finally:
        del os.environ["BATCH_TEST_LOG"]
    words = log.read_text().split()
    assert words.count("weights") == 1
    running, overlapped = 0, False
    for word in words:
        running += {"run": 1, "ran": -1}.get(word, 0)
        assert running in (0, 1)
        overlapped |= running == 1 and word in ("read", "written")
    assert overlapped


@pytest.mark.slow
def test_workers_end_with_a_parent_that_is_killed(tiny_weights: Path, tmp_path: Path) -> None:
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    parent = context.Process(target=batch_workers.parent, args=(theirs, settings(tiny_weights)))
    parent.start()
    pid = ours.recv()
    assert parent.pid is not None
    os.kill(parent.pid, signal.SIGKILL)
    parent.join()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("the worker lives on")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are of POSIX")
def test_no_worker_sees_an_interrupt_while_it_starts() -> None:
    """Not the first one of a program either, with which Python starts a process of its own."""
    code = (
        "import multiprocessing as m, signal\n"
        "from restore_rwkv.batch.pool import _without_interrupts\n"
        "def serve(): pass\n"
        "if __name__ == '__main__':\n"
        "    with _without_interrupts():\n"
        "        process = m.get_context('spawn').Process(target=serve)\n"
        "        process.start()\n"
        "        print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))\n"
        "    print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True", "False"], run.stderr


def test_a_second_thread_of_the_parent_may_start_a_pool() -> None:
    """As a service does; signals are of the main thread."""
    rooms: list[int] = []

    def start() -> None:
        with PlayedPool(jobs=2) as pool:
            rooms.append(pool.room)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert rooms == [6]


def test_an_outcome_counts_deaths_and_attempts_together(pool: PlayedPool) -> None:
    pool.submit(job("a"))
    pool.news()
    pool.played[0].die()
    pool.news()
    pool.played[1].say(Ready(), done("a", attempts=3))
    expected = dataclasses.replace(done("a").outcome, attempts=4)
    assert pool.news() == [Ended(expected)]
    assert not any(isinstance(word, Stop) for word in pool.played[1].heard())
