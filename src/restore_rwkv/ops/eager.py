"""Whether a kernel may read tensors by their addresses, past PyTorch's dispatcher.

Every private name of PyTorch that the package uses is here. Where a release no longer has one, the
answer is the one that keeps kernels away: slower, and right.
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
    """A private function of torch, or one that answers "yes" where torch has it no longer."""
    try:
        function: Callable[..., Any] = operator.attrgetter(name)(torch)
    except AttributeError:
        return lambda *_: True
    return function


_tracing_state, _watching_modes, _stands_for_others = map(_private, PRIVATE)

# An exported graph must run where this package is not. Older than torch 2.7: nor in a compiled one.
is_exporting: Callable[[], bool] = getattr(
    torch.compiler, "is_exporting", torch.compiler.is_compiling
)


def is_eager(*tensors: Tensor) -> bool:
    """Whether a kernel may read these tensors by their addresses.

    Not while a graph is traced, a mode watches the operators, or a tensor stands for others.
    """
    if torch.compiler.is_compiling() or _tracing_state() is not None or _watching_modes():
        return False
    return all(
        type(x) in (Tensor, Parameter) and not (x.is_meta or _stands_for_others(x)) for x in tensors
    )


def records_gradients(*tensors: Tensor) -> bool:
    """Whether autograd has to see the operations on these tensors."""
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


def is_recorded(*tensors: Tensor, parameters: Iterable[Tensor] = ()) -> bool:
    """Whether PyTorch has to see every operation: for gradients, a graph, or autocast.

    Args:
        tensors: inputs of the operations, all on one device.
        parameters: weights of the operations.
    """
    if not is_eager(*tensors) or torch.is_autocast_enabled(tensors[0].device.type):
        return True
    return records_gradients(*tensors, *parameters)


def repeats_elements(x: Tensor) -> bool:
    """Whether several indices of a tensor name one element, as after `expand`.

    Like `torch._debug_has_internal_overlap(x) == 1`, by public names.
    """
    return any(size > 1 and stride == 0 for size, stride in zip(x.shape, x.stride(), strict=True))
