"""Checks of where kernels may run, with and without the private names of PyTorch they use."""

from __future__ import annotations

import importlib
import operator
from collections.abc import Iterator

import pytest
import torch

from restore_rwkv.ops import eager
from tests.helpers.bi_wkv_cases import (
    BACKENDS,
    make_inputs,
    relative_rms,
    results,
    tolerance,
    truth,
)


@pytest.fixture(params=eager.PRIVATE)
def _missing_name(request: pytest.FixtureRequest) -> Iterator[None]:
    """Import `eager` as in a PyTorch that no longer has one of the private names."""
    parent, _, name = request.param.rpartition(".")
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(operator.attrgetter(parent)(torch), name)
        importlib.reload(eager)
    yield
    importlib.reload(eager)


def test_plain_tensors_are_eager() -> None:
    assert eager.is_eager(torch.zeros(2), torch.nn.Parameter(torch.zeros(2)))


@pytest.mark.usefixtures("_missing_name")
def test_without_a_private_name_nothing_is_eager() -> None:
    assert not eager.is_eager(torch.zeros(2))
    assert eager.is_recorded(torch.zeros(2))


@pytest.mark.usefixtures("_missing_name")
@pytest.mark.parametrize("backend", ["auto", *BACKENDS[:2]])
def test_without_a_private_name_the_operator_is_right(backend: str) -> None:
    shape = (2, 127, 17)
    inputs = make_inputs(*shape).to(torch.float32)
    for name, actual in results(inputs, backend).items():
        assert relative_rms(actual, truth(*shape)[name]) < tolerance(torch.float32, name), name


def test_gradients_autocast_and_parameters_are_recorded() -> None:
    x, weight = torch.zeros(2), torch.nn.Parameter(torch.zeros(2))
    assert not eager.is_recorded(x)
    assert eager.is_recorded(x, parameters=[weight])
    with torch.no_grad():
        assert not eager.is_recorded(x, parameters=[weight])
        with torch.autocast("cpu", torch.bfloat16):
            assert eager.is_recorded(x)


@pytest.mark.parametrize(
    ("shape", "stride"),
    [
        ((2, 3), (3, 1)),
        ((2, 3), (1, 2)),
        ((2, 3), (0, 1)),
        ((1, 3), (0, 1)),
        ((2, 3), (3, 0)),
        ((2, 1), (1, 0)),
        ((2, 2), (1, 1)),  # overlaps, which neither function detects
        ((2, 2), (9, 2)),
        ((), ()),
    ],
)
def test_repeated_elements_are_found_as_pytorch_finds_them(
    shape: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    x = torch.zeros(20).as_strided(shape, stride)
    assert eager.repeats_elements(x) == (torch._debug_has_internal_overlap(x) == 1)
