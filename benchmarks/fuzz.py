"""Fuzz a reader, guided by coverage: give it mutated files for some minutes.

    python -m benchmarks.fuzz [--minutes M] [--out DIR] READER [READER ...]

A finding is an input for which anything but a `RestoreError` or an `OSError` is raised, or that
takes longer than 10 s or more than 2 GB. Each is saved as a file in DIR, one for each place in the
code; the exit code is 1 if there are any. Seeds are the files of `tests/helpers/odd_files`. Needs
atheris (`pip install atheris`), on Linux or macOS.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import importlib.util
import logging
import re
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

LONGEST = 10  # seconds of one input
LARGEST = 2048  # MB of the process
_LARGEST_SEED = 70_000  # bytes
_INSTRUMENTED = ["restore_rwkv", "nibabel", "pydicom"]
_MODULES = (  # imported before the first input, so that they are instrumented
    "restore_rwkv.io.dicom.suv",
    "restore_rwkv.io.files",
    "restore_rwkv.io.sidecar",
    "restore_rwkv.model.header",
    "nibabel.freesurfer.mghformat",
    "nibabel.nifti1",
    "nibabel.nifti2",
    "nibabel.orientations",
    "pydicom.filereader",
    "pydicom.pixels",
)


@dataclass(frozen=True)
class Reader:
    """What a fuzzed file is given to.

    Attributes:
        suffix: of the file that is read.
        families: of the corpus, whose files with this suffix are the seeds.
        repair: what is done to an input so that mutations get past its checksums.
    """

    suffix: str
    families: tuple[str, ...]
    repair: Callable[[bytes], bytes] = bytes


def with_checksums(content: bytes) -> bytes:
    """A PNG file with the checksum of each chunk put right."""
    done, place = bytearray(content), 8
    while place + 12 <= len(done):
        (length,) = struct.unpack_from(">I", done, place)
        end = place + 8 + length
        if end + 4 > len(done):
            break
        struct.pack_into(">I", done, end, zlib.crc32(done[place + 4 : end]))
        place = end + 4
    return bytes(done)


READERS = {
    "nifti": Reader(".nii", ("NIfTI bytes", "NIfTI header", "NIfTI values")),
    "dicom": Reader(".dcm", ("DICOM slices", "DICOM pixels", "DICOM geometry", "DICOM headers")),
    "zip": Reader(".zip", ("archives",)),
    "png": Reader(".png", ("pictures",), with_checksums),
    "tiff": Reader(".tif", ("pictures",)),
    "npy": Reader(".npy", ("arrays",)),
    "nrrd": Reader(".nrrd", ("other formats",)),
    "metaimage": Reader(".mha", ("other formats",)),
    "mgh": Reader(".mgh", ("other formats",)),
    "json": Reader(".json", ("names and sidecars",)),
    "safetensors": Reader(".safetensors", ("weights",)),
}


def seeds(reader: Reader, folder: Path) -> int:
    """Write the seeds of a reader into a folder, and return their number."""
    from tests.helpers.odd_files import all_cases

    found: set[bytes] = set()
    for case in all_cases().values():
        if case.family in reader.families and not case.missing():
            with tempfile.TemporaryDirectory() as made:
                case.make(Path(made))
                found |= set(islice(_contents(Path(made), reader.suffix), 2))
    for number, content in enumerate(sorted(found)):
        (folder / f"{number:04d}").write_bytes(content)
    return len(found)


def _contents(folder: Path, suffix: str) -> Iterator[bytes]:
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.is_symlink() or path.stat().st_size > _LARGEST_SEED:
            continue
        if path.name.endswith(suffix):
            yield path.read_bytes()
        elif path.name.endswith(f"{suffix}.gz"):
            try:
                yield gzip.decompress(path.read_bytes())[:_LARGEST_SEED]
            except (OSError, EOFError, zlib.error):
                continue


def place_of(error: BaseException) -> str:
    """Type of an error and the line that raised it, as a name for a file."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    inside = [f for f in traceback.extract_tb(error.__traceback__) if "restore_rwkv" in f.filename]
    ours = inside[-1] if inside else frame
    parts = (type(error).__name__, Path(ours.filename).stem, str(ours.lineno))
    return "-".join((*parts, Path(frame.filename).stem, str(frame.lineno)))


def fuzz(name: str, out: Path, options: list[str]) -> None:
    """Fuzz one reader in this process, which libFuzzer ends.

    Args:
        name: of the reader.
        out: folder of the findings.
        options: of libFuzzer; the last is the folder of the seeds, beside which is one to work in.
    """
    import atheris

    with atheris.instrument_imports(include=_INSTRUMENTED):
        for module in _MODULES:
            if importlib.util.find_spec(module) is not None:
                importlib.import_module(module)
    from restore_rwkv.errors import RestoreError
    from restore_rwkv.io import read_volume
    from restore_rwkv.model.header import read_header

    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    folder = Path(options[-1]).with_name("work")
    reader = READERS[name]
    target = folder / f"scan{reader.suffix}"
    read: Callable[[Path], object] = read_volume
    if name == "safetensors":
        read = read_header
    elif name == "json":
        from tests.helpers.odd_files.images import plain

        scan = plain(folder, "scan.nii")
        read = lambda path: read_volume(scan)  # noqa: E731

    def one(data: bytes) -> None:
        target.write_bytes(reader.repair(data))
        try:
            read(target)
        except (RestoreError, OSError):
            return
        except Exception as error:
            finding = out / f"{name}-{place_of(error)}{reader.suffix}"
            if not finding.exists():
                finding.write_bytes(target.read_bytes())
                text = "".join(traceback.format_exception(error))
                finding.with_name(f"{finding.name}.txt").write_text(text)

    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()


def supervise(name: str, minutes: float, out: Path) -> int:
    """Fuzz one reader in processes of their own, print a line, and return the findings."""
    before = set(out.glob(f"{name}-*"))
    end = time.monotonic() + 60 * minutes
    runs = coverage = 0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        corpus = Path(folder, "corpus")
        for path in (corpus, corpus.with_name("work")):
            path.mkdir()
        count = seeds(READERS[name], corpus)
        while (left := int(end - time.monotonic())) > 0:
            options = [
                f"-max_total_time={left}",
                f"-timeout={LONGEST}",
                f"-rss_limit_mb={LARGEST}",
                f"-max_len={_LARGEST_SEED}",
                f"-artifact_prefix={out}/{name}-",
                "-print_final_stats=1",
                str(corpus),
            ]
            command = [sys.executable, "-m", "benchmarks.fuzz", "--inside", "--out", str(out), name]
            ended = subprocess.run([*command, "--", *options], capture_output=True, text=True)
            runs += _number(r"stat::number_of_executed_units:\s*(\d+)", ended.stderr)
            coverage = max(coverage, _number(r"cov: (\d+)", ended.stderr))
            if ended.returncode and "stat::" not in ended.stderr:
                print(ended.stderr[-2000:], file=sys.stderr)
                break
    new = sorted(p for p in set(out.glob(f"{name}-*")) - before if p.suffix != ".txt")
    print(
        f"{name}: {runs} inputs from {count} seeds in {minutes:g} min, coverage {coverage}, "
        f"{len(new)} findings",
        *new,
        sep="\n    ",
        flush=True,
    )
    return len(new)


def _number(pattern: str, text: str) -> int:
    return max((int(found) for found in re.findall(pattern, text)), default=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "readers", nargs="+", choices=READERS, metavar="READER", help=str([*READERS])
    )
    parser.add_argument("--minutes", type=float, default=10, help="for each reader")
    parser.add_argument("--out", type=Path, default=Path("fuzz-findings"), help="folder")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    words = sys.argv[1:]
    own, options = words, []
    if "--" in words:
        own, options = words[: words.index("--")], words[words.index("--") + 1 :]
    given = parser.parse_args(own)
    if importlib.util.find_spec("atheris") is None:
        sys.exit("error: atheris is not installed; pip install atheris (Linux and macOS)")
    if given.inside:
        fuzz(given.readers[0], given.out, options)
        return
    given.out.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")  # of libraries, while they make odd files
    sys.exit(sum(supervise(name, given.minutes, given.out) for name in given.readers) > 0)


if __name__ == "__main__":
    main()
