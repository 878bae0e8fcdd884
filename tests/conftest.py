"""A tiny network, its weight file, a small scan and a series that several test files share."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest
import torch
from pydicom.dataset import Dataset

from restore_rwkv.model import RestoreRWKV, RestoreRWKVConfig, save_weights
from restore_rwkv.tasks import ScalingRule
from tests.helpers.browsers import WITHOUT_GPU, Offline, started
from tests.helpers.synthetic_series import SLICES, SeriesWriter, make_slice, save

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TINY = RestoreRWKVConfig(dim=4, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1, hidden_rate=2)


def pytest_configure() -> None:
    """Without a GPU, Triton runs in its interpreter, which it has to know when it is imported."""
    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"
    _heed_signals()


def _heed_signals() -> None:
    """Undo what `nohup` and a shell's `&` set: programs that the tests start would inherit it."""
    if threading.current_thread() is threading.main_thread():
        for name, handler in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) == signal.SIG_IGN:
                signal.signal(number, handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the slow tests first, so that no core waits for one at the end."""
    items.sort(key=lambda item: "slow" not in item.keywords)


@pytest.fixture
def tiny_network() -> RestoreRWKV:
    """An untrained network in its inference form; its residual is far from zero."""
    torch.manual_seed(0)
    return RestoreRWKV(TINY).merged()


@pytest.fixture
def tiny_weights(tiny_network: RestoreRWKV, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_weights(path, tiny_network, scaling={"mri-sr": ScalingRule("robust")}, training={})
    return path


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A smooth int16 volume with thick slices and an oblique affine of odd numbers."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in (40, 33, 5)), indexing="ij"))
    data = 900 * np.exp(-3 * (grid**2).sum(0)) + 60 * (grid[0] > 0.3)
    affine = np.array(
        [[-0.78, 0.02, 0.1, 31.7], [0.021, 0.79, -0.3, -12.9], [0, 0.06, 6.5, 4.1], [0, 0, 0, 1]]
    )
    image = nib.Nifti1Image(data.astype(np.int16), affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    path = tmp_path / "scan.nii.gz"
    nib.save(image, path)
    return path


@pytest.fixture
def write_series(tmp_path: Path) -> SeriesWriter:
    """Return a function that writes a series, after ``change(k, slice)`` where it is given."""

    def write(
        change: Callable[[int, Dataset], None] = lambda k, dataset: None,
        slices: tuple[int, ...] = tuple(range(SLICES)),
    ) -> Path:
        folder = tmp_path / "series"
        folder.mkdir(exist_ok=True)
        for k in slices:
            dataset = make_slice(k)
            change(k, dataset)
            # Names in an order that is not that of the slices.
            save(dataset, folder / f"IM{(k * 3 + 2) % 5}_{k}.dcm")
        return folder

    return write


@pytest.fixture(scope="module")
def browser_of_files() -> Iterator[Browser]:
    with started(*WITHOUT_GPU) as browser:
        yield browser


@pytest.fixture
def faults() -> list[str]:
    """Requests, errors of scripts and lines of the console of pages that a test opens."""
    return []


@pytest.fixture
def pages(browser_of_files: Browser, faults: list[str]) -> Iterator[Offline]:
    """Opens files in a browser without any network."""
    pages = Offline(browser_of_files, faults)
    yield pages
    pages.close()
