"""The recipes of `deploy/` and of docs/deployment.md against the program that they start."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import typer
import yaml

from restore_rwkv.apps.cli.app import app
from restore_rwkv.apps.node.config import NodeConfig
from restore_rwkv.apps.node.config_file import read_config
from restore_rwkv.apps.node.metrics import Metrics, MetricsServer
from tests.helpers import ROOT

DEPLOY = ROOT / "deploy"
DOCS = ROOT / "docs" / "deployment.md"
KUBERNETES = sorted(DEPLOY.glob("kubernetes-*.yaml"))
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")

posix = pytest.mark.skipif(os.name != "posix", reason="shell scripts")


def joined(text: str) -> str:
    """A text whose lines do not end in backslashes."""
    return re.sub(r"\\\n\s*", " ", text)


def instructions(name: str) -> list[str]:
    """What follows an instruction of the Dockerfile, each time."""
    plain = re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.MULTILINE)
    return re.findall(rf"^{name} +(.+)$", joined(plain), re.MULTILINE)


def documents(path: Path) -> list[dict]:
    return [x for x in yaml.safe_load_all(path.read_text(encoding="utf-8")) if x is not None]


def pod_of(document: dict) -> dict | None:
    """The pod that a Kubernetes document makes."""
    return document["spec"].get("template", {}).get("spec") if "spec" in document else None


def pods() -> Iterator[tuple[str, dict]]:
    for path in KUBERNETES:
        for document in documents(path):
            pod = pod_of(document)
            if pod is not None:
                yield f"{path.name}: {document['metadata']['name']}", pod


def command_lines() -> list[tuple[str, str]]:
    """Every command line of the program in the recipes: where it stands, and its words."""
    found = []
    for path in (*sorted(DEPLOY.iterdir()), DOCS):
        text = path.read_text(encoding="utf-8")
        if path == DOCS:
            text = "\n".join(re.findall(r"^```(?:sh|ini)\n(.+?)^```", text, re.M | re.S))
        pattern = r"(?:^|[\s/`])restore-rwkv(?::\w+)? +([a-z]+(?=[\s`]|$)[^\n|;&#>)]*)"
        found += [(path.name, words) for words in re.findall(pattern, joined(text))]
    for name, pod in pods():
        for container in pod["containers"]:
            if "command" not in container:
                found.append((name, shlex.join(container["args"])))
    return [(place, words) for place, words in found if not words.startswith(("batch]", "batch`"))]


@pytest.mark.parametrize(("place", "words"), command_lines())
def test_every_command_and_flag_of_a_recipe_exists(place: str, words: str) -> None:
    group = typer.main.get_command(app)
    name, *others = words.split()
    command = group.commands.get(name)  # type: ignore[attr-defined]
    assert command is not None, f"{place}: no command {name}"
    known = {flag for parameter in command.params for flag in parameter.opts}
    used = [word.partition("=")[0] for word in others if re.match(r"--?[a-z]", word)]
    assert set(used) <= known | {"--help", "-h"}, place


def test_recipes_were_found() -> None:
    places = {place for place, _ in command_lines()}
    assert {"slurm.sh", "kubernetes-batch.yaml", "node.service", "deployment.md"} <= places
    assert "kubernetes-node.yaml: restore-rwkv-node" in places


def test_what_the_image_copies_exists_and_is_not_ignored() -> None:
    sources = [
        source
        for words in instructions("COPY")
        if "--from=" not in words
        for source in words.split()[:-1]
    ]
    assert {"src", "pyproject.toml", "constraints.txt"} <= set(sources)
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    assert "*" in ignored
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignored, f".dockerignore: let {source} through"


def test_the_image_installs_what_the_lock_says() -> None:
    (base,) = [words.partition("=")[2] for words in instructions("ARG") if "BASE=" in words]
    assert re.fullmatch(r"[a-z]+:\d+\.\d+\.\d+-[a-z-]+", base), "a tag that moves"
    stages = [words.split() for words in instructions("FROM")]
    names = {words[-1] for words in stages}
    assert names == {"build", "batch", "node"}
    assert {words[0] for words in stages} <= {"${BASE}", *names}
    assert not instructions("ADD")
    installs = re.findall(r"pip install ([^;&\n]+)", joined(DOCKERFILE))
    assert len(installs) == 3
    assert all("--constraint constraints.txt" in words for words in installs)
    locked = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert re.search(r"^torch==[\d.]+$", locked, re.MULTILINE), "torch without an index is any"


def test_no_container_runs_as_root_or_can_become_root() -> None:
    assert instructions("USER") == ["10001:10001"]
    assert DOCKERFILE.index("USER 10001") < DOCKERFILE.index("FROM batch AS node")
    found = dict(pods())
    assert len(found) == 3
    for name, pod in found.items():
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["runAsUser"] == 10001, name
        assert pod["automountServiceAccountToken"] is False, name
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name


def test_every_mount_of_a_pod_has_its_volume() -> None:
    for path in KUBERNETES:
        for document in documents(path):
            pod = pod_of(document)
            if pod is None:
                continue
            claimed = document["spec"].get("volumeClaimTemplates", [])
            volumes = {x["name"] for x in pod["volumes"]} | {x["metadata"]["name"] for x in claimed}
            mounts = {x["name"] for y in pod["containers"] for x in y["volumeMounts"]}
            assert mounts == volumes, path.name


def test_shares_of_kubernetes_are_all_of_one_number() -> None:
    parts, gather, _ = documents(DEPLOY / "kubernetes-batch.yaml")
    assert parts["spec"]["completionMode"] == "Indexed"
    (script,) = parts["spec"]["template"]["spec"]["containers"][0]["args"]
    (number,) = re.findall(r"JOB_COMPLETION_INDEX \+ 1\)\)/(\d+)", script)
    assert int(number) == parts["spec"]["completions"]
    assert gather["spec"]["suspend"] is True
    words = joined(script).partition(" --part ")[0].split()[1:]
    assert words == gather["spec"]["template"]["spec"]["containers"][0]["args"]


def test_the_node_of_kubernetes_is_one_process_with_a_volume_that_only_it_mounts() -> None:
    (node,) = [x for x in documents(DEPLOY / "kubernetes-node.yaml") if x["kind"] == "StatefulSet"]
    assert node["spec"]["replicas"] == 1
    (claim,) = node["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    (secret,) = [x["secret"] for x in pod_of(node)["volumes"] if "secret" in x]  # type: ignore[index]
    assert not secret["defaultMode"] & 0o007, "the node refuses such a key"


def node_settings(text: str, folder: Path) -> NodeConfig:
    """Read settings as the node does, with the files that they name in place."""
    text = text.replace("/etc/restore-rwkv/", "")
    for name in re.findall(r'^(?:certificate|key|authorities|\w+_file) = "(.+?)"', text, re.M):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("secret")
        (folder / name).chmod(0o640)
    path = folder / "node.toml"
    path.write_text(text, encoding="utf-8")
    return read_config(path)


def test_the_example_of_settings_is_valid_and_says_the_defaults(tmp_path: Path) -> None:
    config = node_settings((DEPLOY / "node.toml").read_text(encoding="utf-8"), tmp_path)
    assert {rule.name for rule in config.rules} == {"no-topograms", "low-dose-ct", "mr", "pet"}
    smallest = NodeConfig(folder=tmp_path, peers=config.peers, rules=config.rules[:1])
    for name in ("ae_title", "port", "quota", "quiet_seconds", "metrics_port", "limits"):
        assert getattr(config, name) == getattr(smallest, name), name


def test_the_settings_of_kubernetes_are_valid(tmp_path: Path) -> None:
    settings, service, node = documents(DEPLOY / "kubernetes-node.yaml")
    config = node_settings(settings["data"]["node.toml"], tmp_path)
    (container,) = pod_of(node)["containers"]  # type: ignore[index]
    assert (
        config.port == container["ports"][0]["containerPort"] == service["spec"]["ports"][0]["port"]
    )
    assert config.host == "0.0.0.0"
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert str(config.folder) in mounted
    (claim,) = node["spec"]["volumeClaimTemplates"]
    size = claim["spec"]["resources"]["requests"]["storage"]
    assert int(size.removesuffix("Gi")) * 2**30 > 2 * config.quota, "received and derived files"


def ask(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DEPLOY / "healthy.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_probe_says_what_is_wrong_with_the_node() -> None:
    faults: dict[str, str] = {}
    server = MetricsServer(Metrics(), lambda: faults, 0)
    port = ("--port", str(server.port))
    try:
        assert ask(*port).returncode == 0
        faults["disk"] = "only 3 MiB are free"
        found = ask(*port)
        assert (found.returncode, found.stderr.strip()) == (1, "disk: only 3 MiB are free")
        assert ask(*port, "--except", "disk").returncode == 0
        faults["loop"] = "stuck for 300 s"
        assert ask(*port, "--except", "disk").stderr.strip() == "loop: stuck for 300 s"
    finally:
        server.close()
    found = ask(*port)
    assert found.returncode == 1
    assert found.stderr.startswith("the node does not answer")
    assert found.stderr.count("\n") == 1


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is absent")
def test_systemd_accepts_the_unit_and_calls_it_safe(tmp_path: Path) -> None:
    text = (DEPLOY / "node.service").read_text(encoding="utf-8")
    unit = tmp_path / "restore-rwkv-node.service"
    unit.write_text(text.replace("/opt/restore-rwkv/bin/restore-rwkv", sys.executable))
    verified = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True
    )
    assert "Unknown" not in verified.stderr, verified.stderr
    assert "Failed to parse" not in verified.stderr, verified.stderr
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(unit)]
    subprocess.run(command, capture_output=True, check=True)  # exposure below 2 of 10


@pytest.fixture
def cluster(tmp_path: Path) -> Mapping[str, str]:
    """An environment in which `sbatch` only notes how it was called."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, line in (
        ("restore-rwkv", f'exec {shlex.quote(sys.executable)} -m restore_rwkv "$@"'),
        (
            "sbatch",
            'echo "$RESTORE_RWKV_STEP $*" >> "$SBATCH_LOG"\n'
            'echo "$((41 + $(wc -l < "$SBATCH_LOG")));east"',
        ),
    ):
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "SBATCH_LOG": str(tmp_path / "sbatch.log"),
    }


def slurm(environment: Mapping[str, str], *words: str, **variables: str) -> str:
    command = [str(DEPLOY / "slurm.sh"), *words]
    done = subprocess.run(
        command, env={**environment, **variables}, capture_output=True, text=True, timeout=300
    )
    return f"{done.returncode}\n{done.stdout}{done.stderr}"


@posix
def test_slurm_gathers_after_all_parts_even_if_some_fail(
    cluster: Mapping[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "my, out"
    said = slurm(cluster, "3", "tree", str(out), "--task", "mri-sr")
    assert said.startswith("0\nparts: job 42; gathering: job 43;")
    first, second = Path(cluster["SBATCH_LOG"]).read_text().splitlines()
    assert first.startswith("part --parsable --array=1-3 ")
    assert second.startswith("gather --parsable --dependency=afterany:42 ")
    for line in (first, second):
        assert line.endswith(f"slurm.sh 3 tree {out} --task mri-sr")
    assert out.is_dir()
    assert slurm(cluster, "3", "tree").startswith("2\nusage: ")


@posix
@pytest.mark.slow
def test_parts_of_slurm_and_their_gathering_restore_every_scan_once(
    cluster: Mapping[str, str], tmp_path: Path
) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    (tree / "a").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number in range(5):
        data = 100 + 10 * generator.random((24, 24, 2), dtype=np.float32)
        nib.save(nib.Nifti1Image(data, np.eye(4)), tree / "a" / f"{number}_T1w.nii.gz")
    (tree / "broken_T1w.nii.gz").write_bytes(b"not an image")
    words = ("3", str(tree), str(out), "--force", "--quiet")
    given = {"SLURM_CPUS_PER_TASK": "1", "SLURM_MEM_PER_CPU": "4096"}
    for number in (1, 2, 3):
        said = slurm(
            cluster, *words, RESTORE_RWKV_STEP="part", SLURM_ARRAY_TASK_ID=str(number), **given
        )
        assert said.startswith("0\n"), said
    assert len(list(out.glob("manifest-*-of-3.sqlite"))) == 3
    written = {path: path.stat().st_mtime_ns for path in out.rglob("*.nii.gz")}
    assert len(written) == 5
    said = slurm(cluster, *words, RESTORE_RWKV_STEP="gather", **given)
    assert said.startswith("1\n"), "the broken one"
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.nii.gz")} == written
    with sqlite3.connect(out / "manifest.sqlite") as manifest:
        states = dict(manifest.execute("SELECT state, count(*) FROM scans GROUP BY state"))
    manifest.close()
    assert states == {"done": 5, "refused": 1}  # taken over from the parts


@pytest.mark.slow
def test_the_package_builds_from_what_the_image_copies(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", reason="builds without a network")
    for words in instructions("COPY"):
        *sources, target = words.split()
        if target.startswith("./"):
            for name in sources:
                source = ROOT / name
                if source.is_dir():
                    ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info")
                    shutil.copytree(source, tmp_path / name, ignore=ignored)
                else:
                    shutil.copy(source, tmp_path / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "."]
    built = subprocess.run(
        [*command, "--wheel-dir", "dist"], cwd=tmp_path, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "dist").iterdir()
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.endswith("light-mri-sr.safetensors") for name in names)
    assert any("/samples/" in name for name in names)
