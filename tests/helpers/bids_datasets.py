"""Synthetic BIDS datasets: images with sessions and runs, inherited JSON, and what is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

DESCRIPTION = {
    "Name": "Synthetic heads",
    "BIDSVersion": "1.10.0",
    "DatasetType": "raw",
    "License": "CC0",
    "Authors": ["A. Author", "B. Author"],
    "DatasetDOI": "doi:10.18112/openneuro.ds000001.v1.0.0",
}
PET: dict[str, Any] = {
    "Manufacturer": "Siemens",
    "ManufacturersModelName": "HRRT",
    "Units": "Bq/mL",
    "BodyPart": "HEAD",
    "TracerName": "FDG",
    "TracerRadionuclide": "F18",
    "InjectedRadioactivity": 185,
    "InjectedRadioactivityUnits": "MBq",
    "InjectedMass": 5,
    "InjectedMassUnits": "ug",
    "SpecificRadioactivity": 37,
    "SpecificRadioactivityUnits": "MBq/ug",
    "ModeOfAdministration": "bolus",
    "TimeZero": "10:00:00",
    "ScanStart": 0,
    "InjectionStart": 0,
    "AcquisitionMode": "list mode",
    "ImageDecayCorrected": True,
    "ImageDecayCorrectionTime": 0,
    "ReconMethodName": "OSEM",
    "ReconMethodParameterLabels": ["none"],
    "ReconFilterType": "none",
    "AttenuationCorrection": "measured",
}
MR: dict[str, Any] = {
    "Manufacturer": "Siemens",
    "MagneticFieldStrength": 3,
    "EchoTime": 0.003,
    "RepetitionTime": 2.0,
    "ImageType": ["ORIGINAL", "PRIMARY", "M"],
}


def write_image(path: Path, shape: tuple[int, ...] = (32, 32, 3)) -> Path:
    """Write a smooth image with the units that BIDS wants."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape[:3]), indexing="ij"))
    data = 900 * np.exp(-3 * (grid**2).sum(0)) + 50
    if len(shape) == 4:
        data = np.stack([data * (1 + time) for time in range(shape[3])], axis=-1)
    affine = np.diag([6.0, 6.0, 8.0, 1.0])
    image = nib.Nifti1Image(data.astype(np.float32), affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    if len(shape) == 4:
        image.header.set_zooms((6.0, 6.0, 8.0, 2.0))  # RepetitionTime of the JSON
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def write_json(path: Path, values: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))
    return path


def write_dataset(root: Path) -> Path:
    """Write a valid raw dataset of two subjects."""
    write_json(root / "dataset_description.json", DESCRIPTION)
    (root / "README").write_text("Smooth blobs that stand for heads, made for tests.\n" * 4)
    (root / "participants.tsv").write_text("participant_id\nsub-01\nsub-02\n")
    write_json(root / "T1w.json", MR)
    write_json(root / "task-rest_bold.json", {"TaskName": "rest", "RepetitionTime": 2.0})
    write_json(root / "pet.json", PET)
    for session in ("a", "b"):
        place = root / f"sub-01/ses-{session}"
        stem = f"sub-01_ses-{session}"
        for run in ("1", "2"):
            write_image(place / f"anat/{stem}_run-{run}_T1w.nii.gz")
        write_json(place / f"anat/{stem}_run-1_T1w.json", {"EchoTime": 0.004})
        write_image(place / f"func/{stem}_task-rest_bold.nii.gz", (8, 8, 3, 4))
        (place / f"func/{stem}_task-rest_events.tsv").write_text("onset\tduration\n0\t1\n")
    write_json(root / "sub-01/ses-b/sub-01_ses-b_T1w.json", {"RepetitionTime": 2.5})
    write_image(root / "sub-02/anat/sub-02_FLAIR.nii")
    write_json(root / "sub-02/anat/sub-02_FLAIR.json", {"InversionTime": 2.5})
    write_image(root / "sub-02/pet/sub-02_pet.nii.gz", (32, 32, 3, 2))
    times = {"FrameTimesStart": [0, 60], "FrameDuration": [60, 60]}
    write_json(root / "sub-02/pet/sub-02_pet.json", times)
    return root
