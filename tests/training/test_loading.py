"""Batches that are drawn by processes of their own."""

from __future__ import annotations

import gc
import os
import threading
import time
from multiprocessing import active_children, get_start_method
from pathlib import Path
from typing import Any

import pytest
import torch

from restore_rwkv.data import find_sets
from restore_rwkv.training.loading import batches_of
from restore_rwkv.training.loop import Machine, train
from restore_rwkv.training.pairs import PairSampler
from tests.training.test_loop import data, recipe

__all__ = ["data"]  # the fixture

forked = pytest.mark.skipif(get_start_method() != "fork", reason="processes are not forked")


@pytest.fixture
def sampler(data: Path) -> PairSampler:
    return PairSampler(find_sets([data], ("mri-sr",)), recipe(9))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_no_process_and_no_thread_is_left(workers: int, data: Path, tmp_path: Path) -> None:
    earlier, children = set(threading.enumerate()), active_children()
    train(recipe(2), [data], tmp_path / "run", machine=Machine(workers=workers))
    assert set(active_children()) <= set(children)
    gc.collect()  # of the queue of the logs, whose thread then ends
    end = time.monotonic() + 10
    while not set(threading.enumerate()) <= earlier and time.monotonic() < end:
        time.sleep(0.05)
    assert set(threading.enumerate()) <= earlier


@forked
@pytest.mark.slow
def test_a_process_that_does_not_end_by_itself_is_ended(
    sampler: PairSampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, batch = os.getpid(), PairSampler.batch

    def stuck_later(self: PairSampler, draws: Any, crop: int) -> Any:
        if os.getpid() != here and stuck:
            time.sleep(600)
        stuck.append(True)
        return batch(self, draws, crop)

    stuck: list[bool] = []
    monkeypatch.setattr(PairSampler, "batch", stuck_later)
    fabric = Machine().fabric("32-true")
    children = active_children()
    batches = batches_of(sampler, fabric, range(5), 1)
    first = next(batches)
    assert torch.equal(first[0], batch(sampler, sampler.draws(0), 32)[0])
    (process,) = set(active_children()) - set(children)
    batches.close()
    assert not process.is_alive()


def test_batches_are_those_of_the_sampler(sampler: PairSampler) -> None:
    found = list(batches_of(sampler, Machine().fabric("32-true"), range(3, 5), None))
    assert len(found) == 2
    for number, each in zip((3, 4), found, strict=True):
        wanted = sampler.batch(sampler.draws(number), 32)
        for one, other in zip(each, wanted, strict=True):
            assert one is other is None or torch.equal(one, other)
