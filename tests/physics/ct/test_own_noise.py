"""The noise of a scan of CT at its own dose, drawn several times."""

from __future__ import annotations

import pytest
import torch

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics.ct import OwnNoise, own_noise, scan_noise
from tests.helpers.ct_phantoms import QUICK, ellipses, seeded


@pytest.mark.parametrize("kept", [256, 8, 0])
def test_draws_are_those_of_scan_noise(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit by bit, whether the projections of all, some or no slices are kept."""
    monkeypatch.setattr(own_noise, "_KEPT", kept)
    hu = ellipses((48, 40), (4.0, 4.0), (0, 0, 70, 60, 20)).expand(10, 48, 40).clone()
    noise, generator = OwnNoise(hu, (4.0, 4.0), QUICK), seeded()
    again = seeded()
    for _ in range(2):
        expected = scan_noise(hu, (4.0, 4.0), scanner=QUICK, generator=again)
        assert noise.draw(generator).equal(expected)
    assert not noise.draw(generator).equal(expected)


def test_several_draws_at_once_are_those_of_draws_one_after_the_other() -> None:
    hu = ellipses((48, 40), (4.0, 4.0), (0, 0, 70, 60, 20)).expand(3, 48, 40).clone()
    noise, generator, again = OwnNoise(hu, (4.0, 4.0), QUICK), seeded(), seeded()
    together = noise.draw_several(generator, 4)
    assert together.shape == (4, 3, 48, 40)
    torch.testing.assert_close(together, torch.stack([noise.draw(again) for _ in range(4)]))


def test_errors() -> None:
    with pytest.raises(OperatorError, match="values that are not finite"):
        OwnNoise(torch.full((1, 8, 8), torch.inf), (1.0, 1.0), QUICK)
