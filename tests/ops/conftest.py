"""Speed up Triton's interpreter, in which the GPU kernels run without a GPU, by a factor of two."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from restore_rwkv.ops.gpu import launch as gpu


@pytest.fixture(scope="session", autouse=True)
def _fast_interpreter() -> Iterator[None]:
    """Patch Triton's language once per kernel launch, not again in each function that it calls.

    The interpreter would otherwise search and replace the whole language at each of these calls.
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
