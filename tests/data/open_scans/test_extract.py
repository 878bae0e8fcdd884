"""Exactly the named files come out of an archive; whatever is unsafe or wrong is refused."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from restore_rwkv.data.open_scans import extract as module
from restore_rwkv.data.open_scans.extract import extract
from restore_rwkv.data.open_scans.table import Package
from restore_rwkv.errors import InputError
from tests.helpers.open_archives import folder_sha, sha, tar, wheel

PACKAGE = Package("npm", "tiny", "1.0", "MIT", "tiny.tgz", "")
FILES = {"p/a.bin": b"first", "p/b/c.001": b"second", "p/b/d.002": b"third", "p/b/e/f": b"deep"}
IN_FOLDER = {"c.001": b"second", "d.002": b"third"}
DIGESTS = {"p/a.bin": sha(b"first"), "p/b/": folder_sha(IN_FOLDER)}


def unpack(
    folder: Path, content: bytes, digests: Mapping[str, str], name: str = "tiny.tgz"
) -> dict[str, Path]:
    archive = folder / name
    archive.write_bytes(content)
    return extract(PACKAGE, archive, digests, folder / "out")


def refusal(folder: Path, content: bytes, digests: Mapping[str, str]) -> str:
    before = set(folder.rglob("*"))
    with pytest.raises(InputError) as caught:
        unpack(folder, content, digests)
    message = str(caught.value)
    assert message.startswith("npm tiny 1.0: ")
    assert "\n" not in message
    written = set(folder.rglob("*")) - before - {folder / "tiny.tgz"}
    assert all(path.is_relative_to(folder / "out") for path in written)
    return message


@pytest.mark.parametrize("kind", ["gz", "xz", "zip"])
def test_named_files_and_folders_come_out(tmp_path: Path, kind: str) -> None:
    content = wheel(FILES) if kind == "zip" else tar(FILES, kind)
    name = {"gz": "tiny.tgz", "xz": "tiny.tar.xz", "zip": "tiny.whl"}[kind]
    found = unpack(tmp_path, content, DIGESTS, name)
    assert found["p/a.bin"].read_bytes() == b"first"
    assert found["p/a.bin"].name == "a.bin"
    assert {path.name: path.read_bytes() for path in found["p/b/"].iterdir()} == IN_FOLDER


@pytest.mark.parametrize("path", ["p/z.bin", "p/z/", "a.bin"])
def test_what_is_missing_is_named(tmp_path: Path, path: str) -> None:
    assert f"has no {path}" in refusal(tmp_path, tar(FILES), {path: "0" * 64})


@pytest.mark.parametrize("path", ["p/a.bin", "p/b/"])
def test_other_content_is_refused(tmp_path: Path, path: str) -> None:
    message = refusal(tmp_path, tar(FILES), {path: "0" * 64})
    assert f"{path} has SHA-256 {DIGESTS[path]} instead of {'0' * 64}" in message


def test_a_file_more_or_less_in_a_folder_is_refused(tmp_path: Path) -> None:
    more = {**FILES, "p/b/g.003": b""}
    assert "p/b/ has SHA-256" in refusal(tmp_path, tar(more), DIGESTS)
    less = {name: content for name, content in FILES.items() if name != "p/b/d.002"}
    assert "p/b/ has SHA-256" in refusal(tmp_path, tar(less), DIGESTS)


@pytest.mark.parametrize("name", ["p/b/..", "p/b/.hidden", "p/b/a\\b", "p/b/-option", "p/b/a:b"])
def test_unsafe_names_are_refused(tmp_path: Path, name: str) -> None:
    assert "is not a plain file" in refusal(tmp_path, tar({**FILES, name: b"x"}), DIGESTS)


@pytest.mark.parametrize("name", ["../evil", "/evil", "p/b/../../../evil", "p/evil"])
def test_what_is_not_named_is_not_touched(tmp_path: Path, name: str) -> None:
    found = unpack(tmp_path, tar({name: b"x", **FILES}), DIGESTS)
    assert found.keys() == DIGESTS.keys()
    assert not list(tmp_path.rglob("evil"))
    assert not (tmp_path.parent / "evil").exists()
    assert not Path("/evil").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    link = tarfile.TarInfo("p/b/link")
    link.type, link.linkname = kind, "/etc/passwd"
    assert "is not a plain file" in refusal(tmp_path, tar({"p/b/link": link, **FILES}), DIGESTS)


@pytest.mark.parametrize("name", ["tiny.tgz", "tiny.whl"])
def test_a_bomb_is_refused_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(module, "_LARGEST", 1 << 20)
    monkeypatch.setattr(module, "_CHUNK", 1 << 16)
    files = {"p/a.bin": bytes(1 << 24)}
    content = tar(files) if name == "tiny.tgz" else wheel(files)
    assert len(content) < 1 << 16
    with pytest.raises(InputError, match="larger than 1 MiB"):
        unpack(tmp_path, content, DIGESTS, name)
    [written] = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert written.stat().st_size <= (1 << 20) + (1 << 16)


@pytest.mark.parametrize("kind", ["gz", "xz"])
def test_a_damaged_archive(tmp_path: Path, kind: str) -> None:
    content = tar({**FILES, "p/b/c.001": bytes(range(256)) * 99}, kind)
    message = refusal(tmp_path, content[: len(content) // 2], DIGESTS)
    assert "is damaged" in message or "has no" in message
    assert "is damaged" in refusal(tmp_path, b"no archive at all", DIGESTS)
