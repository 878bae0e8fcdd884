"""Compiles every kernel that a call needs for a GPU that need not be here; `test_gpu` runs this.

Arguments: compute capability, dtype, tokens of a chunk, columns of images that are run along their
rows. Prints name and shared memory in bytes of each kernel.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from restore_rwkv.ops.gpu import launch as gpu


class _AbsentGPU:
    """What the launcher asks of a driver before it compiles."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", int(sys.argv[1]), 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


_run = JITFunction.run


def _compile(self: JITFunction, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
    kernel = _run(self, *args, grid=grid, warmup=True, **options)
    assert kernel.asm["cubin"]
    print(self.__name__, kernel.metadata.shared)


def main() -> None:
    triton.runtime.driver.set_active(_AbsentGPU())
    JITFunction.run = _compile
    w, dtype = torch.zeros(17), getattr(torch, sys.argv[2])
    gpu._LAYOUTS = gpu._Layouts(*(x._replace(chunk=int(sys.argv[3])) for x in gpu._LAYOUTS))
    for columns in map(int, sys.argv[4:]):
        k = torch.zeros(1, columns, 40, 17, dtype=dtype).transpose(1, 2)
        _, log, mean = gpu.forward(w, w, k, k)
        gpu.backward(k, w, w, k, k, log, mean)


if __name__ == "__main__":
    main()
