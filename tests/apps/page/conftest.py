"""A page that serves a folder with one small scan, whose network is a fake."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from restore_rwkv.apps.page import Page
from tests.helpers.local_page import FakeNetwork, Visitor, served

SHAPE = (48, 40, 6)


def ct_values(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """A body of soft tissue with noise, in HU."""
    random = np.random.default_rng(0)
    x, y, _ = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    inside = x**2 + y**2 < 0.4
    values = np.where(inside, 40.0, -1000.0) + 20 * random.standard_normal(shape)
    return values.astype(np.int16)


def write_ct(path: Path, shape: tuple[int, int, int] = SHAPE) -> Path:
    """Write such a CT, with the JSON file that says what it is."""
    nib.save(nib.Nifti1Image(ct_values(shape), np.diag([-0.9, 0.9, 2.5, 1.0])), path)
    side = path.with_name(path.name.removesuffix(".nii.gz") + ".json")
    side.write_text(json.dumps({"Modality": "CT"}))
    return path


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNetwork]:
    fake = FakeNetwork(monkeypatch)
    yield fake
    fake.go.set()  # so that no thread of a page waits for it


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    folder.mkdir()
    write_ct(folder / "ct.nii.gz")
    return folder


@pytest.fixture
def page(network: FakeNetwork, folder: Path, tmp_path: Path) -> Iterator[Page]:
    with served(path=folder, state=tmp_path / "state", upload_cap=1 << 20) as page:
        yield page


@pytest.fixture
def visitor(page: Page) -> Iterator[Visitor]:
    with Visitor(page) as visitor:
        yield visitor
