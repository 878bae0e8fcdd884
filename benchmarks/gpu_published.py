"""The kernel of the published Restore-RWKV, compiled from a folder with its source, to time it.

The folder is `model/cuda` of a copy of https://github.com/Yaziwel/Restore-RWKV; nothing of it is in
this package. Compiling needs nvcc and a C++ compiler, and takes a minute or more. It was never run
here, since there was no GPU.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from restore_rwkv.errors import ConfigError

_SOURCES = (("bi_wkv.cpp", "bi_wkv_kernel.cu"), ("wkv_op.cpp", "wkv_cuda.cu"))
_FLAGS = ["--maxrregcount", "60", "--use_fast_math", "-O3", "-Xptxas", "-O3", "-DTmax=262144"]
_OLD_HEADER, _NEW_HEADER = "THC/THCAtomics.cuh", "ATen/cuda/Atomic.cuh"  # PyTorch 2 has no THC


def operator(folder: Path) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Compile the kernel; returns a function like `bi_wkv` for float32 (B, T, C).

    Raises:
        ConfigError: the folder lacks its files, or there is no GPU or no compiler.
    """
    found = [names for names in _SOURCES if all((folder / name).is_file() for name in names)]
    if not found:
        wanted = " or ".join(" and ".join(names) for names in _SOURCES)
        raise ConfigError(f"{folder}: holds no published kernel; give a folder with {wanted}")
    if not torch.cuda.is_available() or shutil.which("nvcc") is None:
        raise ConfigError("published kernel: needs a CUDA GPU and nvcc; install the CUDA toolkit")
    from torch.utils.cpp_extension import load

    build = Path(tempfile.mkdtemp(prefix="published-"))
    for name in found[0]:
        text = (folder / name).read_text(encoding="utf-8")
        (build / name).write_text(text.replace(_OLD_HEADER, _NEW_HEADER), encoding="utf-8")
    sources = [str(build / name) for name in found[0]]
    module = load("published_wkv", sources, extra_cuda_cflags=_FLAGS, build_directory=str(build))
    kind = _Newer if hasattr(module, "bi_wkv_forward") else _Older

    def run(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
        tokens = k.shape[1]  # the published network divides by it before it calls the kernel
        result: Tensor = kind.apply(module, w / tokens, u / tokens, k, v)  # type: ignore
        return result

    return run


class _Newer(torch.autograd.Function):
    """`bi_wkv_forward(w, u, k, v)` and `bi_wkv_backward(w, u, k, v, gy)`."""

    @staticmethod
    def forward(ctx: Any, module: Any, *inputs: Tensor) -> Tensor:
        ctx.module = module
        ctx.save_for_backward(*inputs)
        y: Tensor = module.bi_wkv_forward(*(x.contiguous() for x in inputs))
        return y

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:
        inputs = (*ctx.saved_tensors, gy)
        return None, *ctx.module.bi_wkv_backward(*(x.contiguous() for x in inputs))


class _Older(torch.autograd.Function):
    """`forward(B, T, C, w, u, k, v, y)` and `backward(B, T, C, w, u, k, v, gy, gw, ...)`."""

    @staticmethod
    def forward(ctx: Any, module: Any, *inputs: Tensor) -> Tensor:
        ctx.module = module
        ctx.save_for_backward(*inputs)
        y = torch.empty_like(inputs[2], memory_format=torch.contiguous_format)
        module.forward(*y.shape, *(x.contiguous() for x in inputs), y)
        return y

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:
        inputs = [x.contiguous() for x in (*ctx.saved_tensors, gy)]
        batch, tokens, channels = gy.shape
        gw, gu = (torch.zeros(batch, channels, device=gy.device) for _ in range(2))
        gk, gv = (torch.zeros_like(inputs[2]) for _ in range(2))
        ctx.module.backward(batch, tokens, channels, *inputs, gw, gu, gk, gv)
        return None, gw.sum(0), gu.sum(0), gk, gv
