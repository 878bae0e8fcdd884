"""What the page does around the network, beside `Restorer.file`, with one stand-in for it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor

from restore_rwkv.errors import RestoreError
from restore_rwkv.model import find_weights
from restore_rwkv.physics.mri import kspace_crop
from restore_rwkv.restoration import RestoreOptions, Restorer
from tests.helpers import ROOT
from tests.helpers.odd_files.images import ct, mri, pet, save_nifti
from tests.helpers.site import given, received
from tests.helpers.tools import needs
from web.about import about

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.slow, needs("chromium")]

ABOUT = about(
    {name: find_weights(name) for name in ("light-mri-sr", "light-ct-denoise", "light-all-in-one")}
    | {"light-pet-synth": find_weights("light-pet-synth")},
    webgpu=False,
)
SCHEMA = json.loads((ROOT / "docs" / "restoration.schema.json").read_text(encoding="utf-8"))
CLOSE = 1e-5  # of the range; 4e-7 was measured, and the steps of MRI amplify what differs

RESTORE = """async ({ file, about, task, weights, options }) => {
    const { readNifti } = await import("/nifti.js");
    const { planOf } = await import("/plan.js");
    const { restored } = await import("/restore.js");
    const { recordOf } = await import("/record.js");
    // The mean of neighbours along the rows, and more for a higher level of noise.
    const network = async (image, height, width, level) => image.map((value, place) =>
        (value + image[place % width ? place - 1 : place + width - 1]) / 2 + 0.01 * (level ?? 0));
    try {
        const volume = await readNifti(fileOf(file));
        const plan = planOf(volume, about.tasks[task], about.weights[weights], options);
        const calls = [];
        const result = await restored(plan, network, (done, all) => calls.push([done, all]));
        const known = { about: about.said, device: "fake", source: null, output: { name: "out" } };
        const record = recordOf(plan, result, known);
        return { data: textOfFloats(result.data), record, calls };
    } catch (error) {
        return { refused: error.constructor.name === "Refusal", text: error.message };
    }
}"""
OPTIONS: dict[str, Any] = {"plane": "auto", "factor": None, "strength": None, "force": False}


def stand_in(network: object, images: Tensor, tile: object, level: float | None = None) -> Tensor:
    """The same network in PyTorch."""
    return (images + images.roll(1, -1)) / 2 + 0.01 * (level or 0)


def degraded(shape: tuple[int, int, int], factor: float = 4) -> np.ndarray:
    slices = torch.from_numpy(np.moveaxis(mri(shape), 2, 0).astype(np.float32).copy())
    return np.moveaxis(kspace_crop(slices, factor).numpy(), 0, 2)


def oblique(spacing: tuple[float, float, float]) -> np.ndarray:
    """An affine whose axes run to the back, down and to the right, somewhat turned."""
    affine = np.array([[0.1, 0, 1, -30], [-1, 0.1, 0.1, 40], [0.1, -1, 0, 20], [0, 0, 0, 1.0]])
    affine[:3, :3] *= np.array(spacing) / np.linalg.norm(affine[:3, :3], axis=0)
    return affine


def write(path: Path, values: np.ndarray, affine: np.ndarray) -> Path:
    save_nifti(path, values.astype(np.float32), affine)
    return path


def padded_ct() -> np.ndarray:
    values = ct((97, 90, 18)) + np.random.default_rng(5).normal(0, 25, (97, 90, 18))
    values[:12] = -2048
    return values


MRI_AFFINE = np.diag([-0.9, 0.9, 5.0, 1.0])
CT_AFFINE = np.diag([-0.8, 0.8, 2.0, 1.0])
PET_AFFINE = np.diag([-2.0, 2.0, 2.0, 1.0])

RUNS: dict[str, tuple[Any, np.ndarray, str, str, dict[str, Any]]] = {
    "mri": (lambda: degraded((65, 52, 5)), MRI_AFFINE, "mri-sr", "light-mri-sr", {"force": True}),
    "mri even": (lambda: degraded((64, 56, 3)), MRI_AFFINE, "mri-sr", "light-all-in-one", {}),
    "mri of full resolution": (
        *(lambda: mri((64, 52, 5)) + 400 * np.random.default_rng(0).random((64, 52, 5)),),
        *(MRI_AFFINE, "mri-sr", "light-mri-sr", {}),
    ),
    "mri by force": (
        *(lambda: mri((64, 52, 5)) + 400 * np.random.default_rng(0).random((64, 52, 5)),),
        *(MRI_AFFINE, "mri-sr", "light-mri-sr", {"force": True}),
    ),
    "mri in another plane": (
        *(lambda: degraded((49, 52, 50)), oblique((1, 1, 1.1)), "mri-sr", "light-mri-sr"),
        {"force": True, "plane": "coronal"},
    ),
    "mri with a factor": (
        *(lambda: degraded((65, 52, 5), 3), MRI_AFFINE, "mri-sr", "light-mri-sr"),
        {"force": True, "factor": 3.0},
    ),
    "signed mri": (
        *(lambda: degraded((65, 52, 5)) - 200, MRI_AFFINE, "mri-sr", "light-mri-sr"),
        {"force": True},
    ),
    "phase": (
        *(lambda: np.linspace(-np.pi, np.pi, 48 * 48 * 3).reshape(48, 48, 3), MRI_AFFINE),
        *("mri-sr", "light-mri-sr", {}),
    ),
    "labels": (
        *(lambda: np.repeat(np.repeat(np.arange(36).reshape(6, 6, 1), 9, 0), 9, 1), MRI_AFFINE),
        *("mri-sr", "light-mri-sr", {}),
    ),
    "constant": (lambda: np.ones((48, 48, 3)), MRI_AFFINE, "mri-sr", "light-mri-sr", {}),
    "ct": (padded_ct, CT_AFFINE, "ct-denoise", "light-ct-denoise", {}),
    "oblique ct": (padded_ct, oblique((0.8, 2, 0.8)), "ct-denoise", "light-ct-denoise", {}),
    "ct of all in one": (padded_ct, CT_AFFINE, "ct-denoise", "light-all-in-one", {}),
    "ct at a quarter": (padded_ct, CT_AFFINE, "ct-denoise", "light-ct-denoise", {"factor": 4.0}),
    "ct by half": (padded_ct, CT_AFFINE, "ct-denoise", "light-ct-denoise", {"strength": 0.5}),
    "ct in small slices": (
        *(lambda: ct((24, 24, 3)), CT_AFFINE, "ct-denoise", "light-ct-denoise", {}),
    ),
    "no ct": (lambda: mri((64, 52, 5)), CT_AFFINE, "ct-denoise", "light-ct-denoise", {}),
    "pet in suv": (
        *(lambda: pet((60, 64, 30)) / 2000, PET_AFFINE, "pet-synth", "light-pet-synth"),
        {"suv": True},
    ),
    "pet of unknown unit": (
        *(lambda: pet((60, 64, 30)), PET_AFFINE, "pet-synth", "light-all-in-one", {}),
    ),
    "pet in other pixels": (
        *(lambda: pet((60, 64, 30)), np.diag([-3.0, 3.0, 3.0, 1.0]), "pet-synth"),
        *("light-pet-synth", {}),
    ),
    "pet with both": (
        *(lambda: pet((60, 64, 30)), PET_AFFINE, "pet-synth", "light-pet-synth"),
        {"factor": 12.0, "strength": 0.5},
    ),
    "a wrong factor": (
        lambda: degraded((65, 52, 5)), MRI_AFFINE, "mri-sr", "light-mri-sr", {"factor": 0.5}
    ),
}  # fmt: skip
SAME = (
    *("task", "slice_axis", "scaling_rule", "suv_per_unit", "no_suv", "tile", "consistency"),
    *("kept", "signed", "factor", "not_for", "notice", "weights_sha256", "modality"),
)
NEARLY = ("strength", "noise_found", "noise_reference", "noise_level")


@pytest.mark.parametrize("name", RUNS)
def test_the_page_restores_as_the_package_does(
    name: str, modules: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, affine, task, weights, more = RUNS[name]
    path = write(tmp_path / "scan.nii.gz", make(), affine)
    asked = {"suv": False, **OPTIONS, **more}
    request = {"file": given(path), "about": ABOUT, "task": task, "weights": weights}
    found = modules.evaluate(RESTORE, {**request, "options": asked})
    monkeypatch.setattr("restore_rwkv.restoration.slices.run", stand_in)
    unit = "SUV" if asked.pop("suv") else "auto"
    refused = ""
    try:
        options = RestoreOptions(**asked, unit=unit)
        right = Restorer(task, weights, "cpu").file(path, tmp_path / "out.nii.gz", options)
    except RestoreError as error:
        refused = str(error)
    if refused:
        assert found.get("refused"), found.get("text", "was restored")
        assert found["text"].partition("; ")[0] == refused.partition("; ")[0]
        return
    assert "text" not in found, found["text"]
    image = nib.load(tmp_path / "out.nii.gz")
    values = received(found["data"]).reshape(image.shape, order="F")
    wanted = np.asarray(image.dataobj)
    assert np.abs(values - wanted).max() <= CLOSE * np.ptp(wanted)
    _same_record(found["record"], json.loads((tmp_path / "out.restoration.json").read_text()))
    assert len(found["record"]["warnings"]) == len(right.record.warnings)
    count = image.shape[found["record"]["slice_axis"]]
    assert found["calls"] == [[done + 1, count] for done in range(count)]


GATE = """async ({ change, fails }) => {
    const { refusal } = await import("/gate.js");
    const trusted = async (image) => image.map((value) => 10 * value);
    const other = async (image) => image.map((value, place) => 10 * value + (place ? 0 : change));
    const open = async () => {
        if (fails) throw new Error("no adapter");
        return other;
    };
    return refusal(trusted, open, Float32Array.of(0, 1, 0.5, 0.2), 2, 2, null);
}"""


@pytest.mark.parametrize(
    ("change", "fails", "says"),
    [
        *((0.009, False, None), (0.011, False, "differs by 1.1e-3 of the range")),
        *((math.nan, False, "differs by Infinity of the range"),),
        (0, True, "cannot run it (no adapter)"),
    ],
)
def test_webgpu_is_used_only_if_it_gives_the_same(
    change: float, fails: bool, says: str | None, modules: Page
) -> None:
    assert modules.evaluate(GATE, {"change": change, "fails": fails}) == says


OVERFLOW = """async ({ file, about }) => {
    const { readNifti } = await import("/nifti.js");
    const { planOf } = await import("/plan.js");
    const { restored } = await import("/restore.js");
    const options = { plane: "auto", factor: null, strength: null, suv: false, force: true };
    const weights = about.weights["light-mri-sr"];
    const plan = planOf(await readNifti(fileOf(file)), about.tasks["mri-sr"], weights, options);
    const network = async (image) => image.map((value, place) => (place === 7 ? NaN : value));
    return restored(plan, network, () => {}).then(() => "restored", (error) => error.message);
}"""


def test_what_overflows_in_the_network_is_refused(modules: Page, tmp_path: Path) -> None:
    """Also where the measured block of k-space would spread it over the slice."""
    path = write(tmp_path / "scan.nii.gz", degraded((64, 56, 3)), MRI_AFFINE)
    line = modules.evaluate(OVERFLOW, {"file": given(path), "about": ABOUT})
    assert line.startswith("scan.nii.gz: its values, up to ")
    assert line.endswith("overflow in the network; scale it down")


def _same_record(found: dict[str, Any], right: dict[str, Any]) -> None:
    jsonschema.validate(found, SCHEMA)
    for key in SAME:
        assert found[key] == right[key], key
    assert (found["no_noise"] is None) == (right["no_noise"] is None)
    for key in NEARLY:
        assert near(found[key], right[key], 1e-4), key
    for key in ("offset", "scale"):
        assert near(found["scaling"][key], right["scaling"][key], 1e-6)
    fit, wanted = found["fit"], right["fit"]
    assert [fit["outcome"], fit["forced"]] == [wanted["outcome"], wanted["forced"]]
    assert [f["kind"] for f in fit["findings"]] == [f["kind"] for f in wanted["findings"]]
    assert fit["measures"].keys() == wanted["measures"].keys()
    assert all(near(fit["measures"][key], value, 1e-3) for key, value in wanted["measures"].items())
    assert (fit["unjudged"] is None) == (wanted["unjudged"] is None)
    change, changed = found["change"], right["change"]
    assert change.keys() == changed.keys()
    for key in ("mean", "largest", "noise_before", "noise_after"):
        assert near(change[key], changed[key], 1e-3, 1e-3), key
    assert change["shift"].keys() == changed["shift"].keys()
    assert all(near(change["shift"][key], value, 1e-3) for key, value in changed["shift"].items())


def near(found: float | None, right: float | None, relative: float, most: float = 1e-9) -> bool:
    """Whether both are missing, or differ by little."""
    if found is None or right is None:
        return found is right
    return abs(found - right) <= max(most, relative * abs(right))
