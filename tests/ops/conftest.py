"""Fixtures: the number of threads restored, and a faster interpreter of the GPU kernels."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from restore_rwkv.ops.gpu import launch as gpu


@pytest.fixture(scope="session", autouse=True)
def _fast_interpreter() -> Iterator[None]:
    """Patch Triton's language once per kernel launch, a factor of two where no GPU runs them.

    The interpreter would otherwise search and replace it all in each function that it calls.
    """
    if not (gpu.installed() and gpu.interpreted()):
        yield
        return
    from triton.runtime import interpreter

    prepare = interpreter._patch_lang
    ready: set[int] = set()

    def call(self: interpreter.InterpretedFunction, *args: object, **kwargs: object) -> object:
        own = self.fn.__module__.startswith("restore_rwkv.")
        if not own and id(self.fn.__globals__) not in ready:  # Triton's own functions: once
            prepare(self.fn)
            ready.add(id(self.fn.__globals__))
        return self.rewrite()(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter.InterpretedFunction, "__call__", call)
        yield


@pytest.fixture
def restored_threads() -> Iterator[None]:
    """Restore the number of threads after a test."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
