"""Build the page that restores in the browser: `make try`, or `python -m web.build`."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock

from restore_rwkv.apps.page.demo import make_demo_scan
from restore_rwkv.errors import InputError, RestoreError
from restore_rwkv.model import find_weights, shipped_weights
from restore_rwkv.model.export import export_onnx
from restore_rwkv.model.shipped import sample_scan
from web.about import MODELS, about
from web.runtime import check_runtime, have_runtime, runtime_files

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PACKAGE = ROOT / "src" / "restore_rwkv"
STATIC = PACKAGE / "apps" / "page" / "static"
SHARED = (
    *("app.css", "icon.svg"),
    *(
        "viewer.js",
        "cursor.js",
        "dropping.js",
        "maps.js",
        "panes.js",
        "profile.js",
        "result.js",
        "swipe.js",
    ),
    *("request.js", "windows.js", "words.js"),
)
"""Files of `restore-rwkv open` that the page has too, beside its viewer of images."""

_MARK = "<!-- the viewer of restore-rwkv open -->"


def build(
    folder: Path, networks: Mapping[str, Path], runtime: Path, *, webgpu: bool = False
) -> Path:
    """Put the page together in a folder that any server of files can give.

    Args:
        folder: what is there is replaced.
        networks: exported networks by the names of their weights.
        runtime: folder with the files of the runtime.
        webgpu: whether the page has those for WebGPU too.

    Returns:
        The folder.

    Raises:
        InputError: the folder exists and is no such page, or a file of the runtime is missing.
    """
    if folder.exists() and not _replaceable(folder):
        raise InputError(f"{folder}: exists and is not such a page; give another folder")
    check_runtime(runtime, webgpu=webgpu)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        made = Path(temporary) / "page"
        made.mkdir()
        _copy(HERE, made, (path.name for path in HERE.glob("*.js")))
        _copy(HERE, made, ["try.css"])
        _copy(ROOT, made, ["LICENSE"])
        _copy(STATIC, made / "page", SHARED)
        shutil.copytree(STATIC / "vendor", made / "page" / "vendor")
        _copy(runtime, made / "runtime", runtime_files(webgpu))
        _copy(HERE, made / "runtime", ["runtime.LICENSE.txt"])
        for name, path in networks.items():
            _copy(path.parent, made / MODELS, [path.name], f"{name}.onnx")
        make_demo_scan(made / "sample")
        (made / "sample").chmod(0o755)  # for servers of another user
        _copy(sample_scan().parent, made / "sample", ["README.md"])
        (made / "index.html").write_text(page(), encoding="utf-8")
        text = json.dumps(about(networks, webgpu=webgpu), allow_nan=False)
        (made / "about.json").write_text(text, encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)
    return folder


def _replaceable(folder: Path) -> bool:
    """Whether what exists is an empty folder, or a page that `build` has made."""
    if not folder.is_dir() or folder.is_symlink():
        return False
    names = {path.name for path in folder.iterdir()}
    return not names or {"about.json", "index.html", "try.js", "runtime"} <= names


def page() -> str:
    """Return the page with the viewer of `restore-rwkv open`, which it takes from there."""
    text = (STATIC / "index.html").read_text(encoding="utf-8")
    viewer = re.search(r'<section id="viewer".*(?=\n</main>)', text, re.DOTALL)
    own = (HERE / "try.html").read_text(encoding="utf-8")
    if viewer is None or own.count(_MARK) != 1:
        raise InputError(
            "index.html or try.html: has no place for the viewer; correct web/build.py"
        )
    return own.replace(_MARK, viewer[0])


def _copy(source: Path, target: Path, names: Iterable[str], to: str | None = None) -> None:
    target.mkdir(exist_ok=True)
    for name in names:
        shutil.copyfile(source / name, target / (to or name))


def exported(name: str, cache: Path) -> Path:
    """Return the export of shipped weights, made unless it is in the cache.

    Raises:
        WeightsError: as `export_onnx`.
        ConfigError: as `export_onnx`.
    """
    weights = find_weights(name)
    path = cache / f"{name}-{_key(weights)}.onnx"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):  # several tests may want it at once
        if not path.is_file():
            print(f"exporting {name}, which takes one or two minutes", flush=True)
            export_onnx(weights, path, precision="float16")
    return path


def _key(weights: Path) -> str:
    """Digest of all that an export depends on."""
    digest = hashlib.sha256(weights.read_bytes())
    for source in (*sorted((PACKAGE / "model").rglob("*.py")), PACKAGE / "ops" / "cumulative.py"):
        digest.update(source.read_bytes())
    digest.update(" ".join(version(name) for name in ("torch", "onnx", "onnxscript")).encode())
    return digest.hexdigest()[:16]


def main(arguments: list[str] | None = None) -> int:
    """Build the page as the command line says, and say how to serve it."""
    parser = argparse.ArgumentParser(prog="python -m web.build", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "build" / "try")
    parser.add_argument("--weights", nargs="+", choices=list(shipped_weights()), metavar="NAME")
    parser.add_argument("--runtime", type=Path, help="folder with the files of the runtime")
    parser.add_argument("--webgpu", action="store_true", help="with the runtime for WebGPU, 27 MB")
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "try-parts")
    given = parser.parse_args(arguments)
    try:
        runtime = given.runtime or have_runtime(given.cache / "runtime", webgpu=given.webgpu)
        names = given.weights or list(shipped_weights())
        networks = {name: exported(name, given.cache) for name in names}
        folder = build(given.output, networks, runtime, webgpu=given.webgpu)
    except RestoreError as error:
        print(error, file=sys.stderr)
        return 1
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 1e6:.0f} MB. To look at it: python -m http.server -d {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
