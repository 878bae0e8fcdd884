"""SHA-256 digests of the command line's results on real scans, to compare two versions.

Run it before and after a change that must not change results::

    python -m benchmarks.digests SCANS > before.txt

SCANS holds `train` and `test` as `restore-rwkv data prepare open` leaves them in `scans`. Digests
are of the voxels, affines and tensors; records and metadata, which name versions, are left out.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel
import numpy as np
from safetensors.numpy import load_file

RECIPE = """task = "{task}"
network = {{ dim = 8, num_blocks = [1, 1, 1, 1], num_refinement_blocks = 1 }}
scaling = "own"
data = {{ crop = 32, augment = true, gain = [0.5, 1.2], avoid_air = true, validation_slices = 2 }}
training = {{ iterations = 6, batch_size = 2, validate_every = 3, clip = 1.0, ema = 0.9 }}
"""
TIMES = ("seconds", "waiting", "cpu_hours")


def main() -> None:
    """Restore, degrade, prepare and train on small parts of the scans, and print digests."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scans", type=Path)
    scans = parser.parse_args().scans.absolute()
    with tempfile.TemporaryDirectory() as folder:
        for name, digest in _digests(scans, Path(folder)):
            print(f"{digest[:32]}  {name}", flush=True)


def _digests(scans: Path, work: Path):
    t1, mr_dicom = scans / "test" / "mr_t1gd_a.nii.gz", scans / "train" / "mr_pd_a_dicom"
    chest, ct_dicom = scans / "test" / "ct_chest_a.nii.gz", scans / "train" / "ct_abdomen_a_dicom"
    slab = work / "slab.nii.gz"
    image = nibabel.load(chest)
    nibabel.save(image.slicer[:, :, 20:24], slab)
    image = nibabel.load(scans / "train" / "mr_t1_c.nii.gz")
    head = work / "head.nii.gz"
    nibabel.save(image, head)
    for name, words in {
        "degrade-mri.nii.gz": ["degrade", t1, "--task", "mri-sr", "--sigma", "3", "--seed", "2"],
        "degrade-ct.nii.gz": ["degrade", slab, "--task", "ct-denoise", "--dose", "0.25"],
        "degrade-ct-counted.nii.gz": ["degrade", slab, "-t", "ct-denoise", "--dose", "0.05"],
        "restore-mri.nii.gz": [
            *("restore", work / "degrade-mri.nii.gz", "--task", "mri-sr", "--consistency", "0"),
        ],
        "restore-mri-consistent.nii.gz": [
            *("restore", work / "degrade-mri.nii.gz", "--task", "mri-sr", "--ensemble"),
        ],
        "restore-mri-all-in-one.nii.gz": [
            *("restore", work / "degrade-mri.nii.gz", "--task", "mri-sr"),
            *("--weights", "light-all-in-one", "--plane", "coronal", "--consistency", "0"),
        ],
        "restore-mri-finer.nii.gz": ["restore", mr_dicom, "--scale", "2"],
        "restore-mri-tiles.nii.gz": [
            *("restore", mr_dicom, "--memory", "80MB", "--consistency", "0"),
        ],
        "restore-ct.nii.gz": ["restore", work / "degrade-ct.nii.gz", "--task", "ct-denoise"],
        "restore-ct-dicom-source-type.nii.gz": ["restore", ct_dicom, "--dtype", "source"],
        "restore-pet-as-array.npy": [
            *("restore", slab, "--task", "pet-synth", "--scaling", "robust", "--plane", "axial"),
        ],
    }.items():
        _run(*words, "-o", work / name, "--quiet")
        yield name, _image(work / name)
    simulated, truth = work / "degrade-pet.nii.gz", work / "pet-truth.nii.gz"
    (work / "head.json").write_text('{"Modality": "MR"}')
    words = ["degrade", head, "--task", "pet-synth", "--seed", "3", "--truth", truth]
    _run(*words, "-o", simulated, "--quiet")
    yield simulated.name, _image(simulated)
    yield truth.name, _image(truth)
    restored = work / "restore-pet.nii.gz"
    _run("restore", simulated, "--task", "pet-synth", "-o", restored, "--quiet")
    yield restored.name, _image(restored)
    yield from _trained(work, mr_dicom, ct_dicom)


def _trained(work: Path, mr_dicom: Path, ct_dicom: Path):
    for task, series in (("mri-sr", mr_dicom), ("ct-denoise", ct_dicom)):
        source = work / task
        for patient in "abc":  # the same scan three times: this is about bits, not about learning
            (source / patient).mkdir(parents=True)
            for file in sorted(series.iterdir())[:4]:
                (source / patient / file.name).write_bytes(file.read_bytes())
        prepared, recipe = work / f"{task}-set", work / f"{task}.toml"
        options = ["--task", task, "--patient", "^[abc]"]
        _run("data", "prepare", "folder", source, "-o", prepared, *options)
        for file in sorted(prepared.rglob("*.npy")):
            yield f"{prepared.name}/{file.name}", _hash(np.load(file))
        recipe.write_text(RECIPE.format(task=task))
        run = work / f"{task}-run"
        _run("train", recipe, "--data", prepared, "-o", run, "--device", "cpu", "--quiet")
        for file in ("best.safetensors", "last.safetensors"):
            tensors = load_file(run / file)
            yield f"train {task} {file}", _hash(*(tensors[name] for name in sorted(tensors)))
        scores = [line.split(",") for line in (run / "log.csv").read_text().splitlines()]
        columns = [i for i, name in enumerate(scores[0]) if name not in TIMES]
        kept = "\n".join(",".join(_rounded(row[i]) for i in columns) for row in scores)
        yield f"train {task} log.csv", hashlib.sha256(kept.encode()).hexdigest()


def _rounded(cell: str) -> str:
    """Round a score to nine decimals, so that the order of a sum does not matter."""
    try:
        return f"{float(cell):.9f}"
    except ValueError:
        return cell


def _image(path: Path) -> str:
    if path.suffix == ".npy":
        return _hash(np.load(path))
    image = nibabel.load(path)
    return _hash(np.asarray(image.dataobj), image.affine)


def _hash(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _run(*words: object) -> None:
    command = [sys.executable, "-m", "restore_rwkv", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")


if __name__ == "__main__":
    main()
