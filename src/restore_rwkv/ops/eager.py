"""Checks whether a kernel may read tensors by their addresses, bypassing PyTorch's dispatcher.

All private names of PyTorch that the package uses are in this module. If a PyTorch release lacks
one of them, the checks keep the kernels from running: slower, but correct.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

PRIVATE = (
    "_C._get_tracing_state",
    "_C._len_torch_dispatch_stack",
    "_C._functorch.is_functorch_wrapped_tensor",
)


def _private(name: str) -> Callable[..., Any]:
    """Return a private function of torch, or one that returns True if torch no longer has it."""
    try:
        function: Callable[..., Any] = operator.attrgetter(name)(torch)
    except AttributeError:
        return lambda *_: True
    return function


_tracing_state, _watching_modes, _stands_for_others = map(_private, PRIVATE)

# Exported graphs must run without this package. Before torch 2.7 this includes compiled graphs.
is_exporting: Callable[[], bool] = getattr(
    torch.compiler, "is_exporting", torch.compiler.is_compiling
)


def is_eager(*tensors: Tensor) -> bool:
    """Return whether a kernel may read these tensors by their addresses.

    It may not while a graph is traced or a mode intercepts the operators, nor if a tensor is a
    subclass, a meta tensor or a wrapper around others.
    """
    if torch.compiler.is_compiling() or _tracing_state() is not None or _watching_modes():
        return False
    return all(
        type(x) in (Tensor, Parameter) and not (x.is_meta or _stands_for_others(x)) for x in tensors
    )


def records_gradients(*tensors: Tensor) -> bool:
    """Return whether autograd must record the operations on these tensors."""
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


def runs_kernels(*tensors: Tensor) -> bool:
    """Return whether own kernels may replace the operations on these tensors, on one device."""
    return is_eager(*tensors) and not torch.is_autocast_enabled(tensors[0].device.type)


def is_recorded(*tensors: Tensor, parameters: Iterable[Tensor] = ()) -> bool:
    """Return whether PyTorch must record every operation: for gradients, a graph, or autocast.

    Args:
        tensors: inputs of the operations, all on one device.
        parameters: weights of the operations.
    """
    if not is_eager(*tensors) or torch.is_autocast_enabled(tensors[0].device.type):
        return True
    return records_gradients(*tensors, *parameters)


def repeats_elements(x: Tensor) -> bool:
    """Return whether several indices of a tensor refer to one element, as after `expand`.

    Equivalent to `torch._debug_has_internal_overlap(x) == 1`, using only public names.
    """
    return any(size > 1 and stride == 0 for size, stride in zip(x.shape, x.stride(), strict=True))
