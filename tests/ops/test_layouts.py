"""Inputs of any strides, images with two token axes, and no reads of uninitialised memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from tests.helpers.bi_wkv_cases import (
    BACKENDS,
    NAMES,
    Inputs,
    make_inputs,
    output,
    relative_rms,
    results,
    skip_if_slow,
    to_device,
    tolerance,
)

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "columns": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "channels first": lambda x: x.movedim(-1, 1).contiguous().movedim(1, -1),
    "every second channel": lambda x: torch.stack([x, x + 1], -1).flatten(-2)[..., ::2],
    "part of a fused tensor": lambda x: torch.cat([x + 1, x, x - 1], -1).chunk(3, -1)[1],
    "every second row": lambda x: torch.stack([x, x + 1], 2).flatten(1, 2)[:, ::2],
    "batch last": lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("channels", [5, 16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_strides_do_not_change_the_result(layout: str, channels: int, backend: str) -> None:
    skip_if_slow(backend, 117 if channels == 5 else 1000)
    inputs = make_inputs(2, 9, 13, channels).to(torch.float32)
    strided = inputs._replace(**{x: LAYOUTS[layout](getattr(inputs, x)) for x in ("k", "v", "gy")})
    assert torch.equal(strided.k, inputs.k)
    assert strided.k.stride() != inputs.k.stride()
    expected, actual = results(inputs, backend), results(strided, backend)
    for name in NAMES:  # the last bits of sums in `torch` depend on the strides
        assert relative_rms(actual[name], expected[name].double()) < tolerance(torch.float32, name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_expanded_tensors_are_read_in_place(backend: str) -> None:
    inputs = make_inputs(1, 9, 1, 16).to(torch.float32)
    shape = (3, 9, 13, 16)
    expanded = Inputs(
        w=inputs.w[:1].expand(16),
        u=inputs.u[:1].expand(16),
        k=inputs.k.expand(shape),
        v=inputs.v[..., :1].expand(shape),
        gy=inputs.gy[:, :1].expand(shape),
    )
    dense = Inputs(*(x.contiguous() for x in expanded))
    expected, actual = results(dense, backend), results(expanded, backend)
    for name in NAMES:
        assert relative_rms(actual[name], expected[name].double()) < tolerance(torch.float32, name)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_an_image_runs_row_by_row_and_its_transpose_column_by_column(backend: str) -> None:
    w, u, k, v, _ = make_inputs(2, 6, 11, 5)
    rows = output(backend, w, u, k, v)
    sequence = output(backend, w, u, k.flatten(1, 2), v.flatten(1, 2))
    assert torch.equal(rows.flatten(1, 2), sequence)
    k, v = k.transpose(1, 2), v.transpose(1, 2)
    columns = output(backend, w, u, k, v)
    torch.testing.assert_close(columns, output(backend, w, u, k.contiguous(), v.contiguous()))
    assert not torch.allclose(columns.transpose(1, 2), rows)


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """Fill what torch.empty returns with NaN."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("w", [3.0, 5000.0])  # 5000: one token per chunk
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 67, 17), (1, 1030, 3)])
def test_uninitialised_memory_is_never_read(
    shape: tuple[int, int, int], w: float, backend: str
) -> None:
    skip_if_slow(backend, shape[1])
    inputs = make_inputs(*shape, w=w).to(torch.float32)
    assert to_device(torch.empty(1), backend).new_empty(3).isnan().all()
    actual = results(inputs, backend)
    torch.use_deterministic_algorithms(False)
    expected = results(inputs, backend)
    assert all(torch.equal(actual[name], expected[name]) for name in NAMES)
