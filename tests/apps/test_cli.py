from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import nibabel as nib
import numpy as np
import pytest
import torch

from restore_rwkv.apps.cli import main
from restore_rwkv.apps.cli.app import option_flags
from restore_rwkv.apps.cli.console import score_row
from restore_rwkv.apps.cli.messages import user_message, with_flags
from restore_rwkv.apps.cli.options import Consistency, Task
from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.evaluation.metrics import MeanScore
from restore_rwkv.model import (
    RestoreRWKV,
    load_weights,
    read_info,
    save_weights,
    shipped_weights,
)
from restore_rwkv.ops import available_backends
from restore_rwkv.options import parse_memory
from restore_rwkv.tasks import TASKS, ScalingRule, Strength
from tests.helpers import ROOT
from tests.helpers.commands import Call

RECIPE = str(ROOT / "recipes" / "light-mri-sr.toml")


def run(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "restore_rwkv", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_restore_writes_the_scan_and_says_so(
    scan: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.nii.gz"
    result = run("restore", scan, "-o", output, "-t", "mri-sr", "--weights", tiny_weights)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""  # no progress where there is no terminal
    assert str(output) in result.stdout
    assert nib.load(output).shape == nib.load(scan).shape


@pytest.mark.parametrize("quiet", [False, True])
def test_restore_says_which_task_it_picked(
    scan: Path,
    tiny_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    quiet: bool,
) -> None:
    (tmp_path / "scan.json").write_text('{"Modality": "MR"}')
    output = tmp_path / "out.nii.gz"
    words = [str(scan), "-o", str(output), "--weights", str(tiny_weights), "--scale", "4"]
    monkeypatch.setattr(sys, "argv", ["restore-rwkv", "restore", *words, *["-q"] * quiet])
    with pytest.raises(SystemExit) as stop:
        main()
    told = capsys.readouterr().out
    assert not stop.value.code
    assert nib.load(output).shape == (160, 132, 5)
    if quiet:
        assert told == ""
    else:
        assert told.startswith("scan.nii.gz: MR, restored with mri-sr\n")
        assert "out.restoration.json" in told


@pytest.mark.parametrize(
    ("code", "words", "match"),
    [
        (
            3,
            ("restore", "{scan}", "-o", "out.nii.gz", "--task", "auto"),
            "scan.nii.gz: nothing says whether it is MR, CT or PT; "
            "give --task mri-sr|ct-denoise|pet-synth",
        ),
        (2, ("restore", "{scan}", "-o", "out.nii.gz", "--scale", "9"), "scale 9 is out of range"),
        (2, ("restore", "{scan}", "-o", "out.nii.gz", "--scale", "four"), "--scale"),
        (2, ("restore", "{scan}", "-o", "out.nii.gz", "--unit", "kg"), "unit 'kg' is unknown"),
        (2, ("restore", "{scan}", "-o", "out.nii.gz", "--unit", "SUV"), "is not that of mri-sr"),
        (2, ("restore", "{scan}", "-o", "out.nii.gz", "--consistency", "-1"), "--consistency"),
        (2, ("restore", "{scan}", "-o", "out.nii.gz", "--factor", "34"), "give at most 33"),
        (
            2,
            ("restore", "{scan}", "-o", "out.nii.gz", "--task", "ct-denoise", "--consistency", "2"),
            "consistency: what was measured for CT is not in the file of an image",
        ),
        (3, ("restore", "none.nii.gz", "-o", "out.nii.gz"), "none.nii.gz: no such file"),
        (3, ("restore", ".", "-o", "out.nii.gz"), "DICOM"),
        (3, ("restore", "{scan}", "-o", "{scan}"), "same file"),
        (3, ("restore", "{scan}", "-o", "{scan}/out.nii.gz"), "is a file, not a folder"),
        (3, ("restore", "{scan}", "-o", "folder/"), "not read from DICOM"),
        (2, ("restore", "{scan}", "-o", "out.nii.gz", "--task", "ct"), "task 'ct' is unknown"),
        (2, ("restore", "{scan}", "-o", "out.nii.gz", "--memory", "much"), "2GiB"),
        (2, ("restore", "{scan}", "-o", "out.nii.gz", "--memory", "1kB"), "allow at least"),
        (2, ("restore", "{scan}", "-o", "out.nii.gz", "--plane", "up"), "plane 'up' is unknown"),
        (3, ("restore", "{scan}", "-o", "out.png"), "write .nii.gz"),
        (
            2,
            ("restore", "{scan}", "-o", "out.nii.gz", "--device", "tpu"),
            "device 'tpu' is unknown",
        ),
        (3, ("restore", "{scan}", "-o", ""), "is a folder"),
        (2, ("restore", "{scan}"), "output"),
        (2, ("restor", "{scan}"), "restor"),
        (2, ("restore", "{scan}", "-o", "out.nii.gz", "--plain", "axial"), "--plain"),
        (2, ("train", "none.toml", "--data", ".", "-o", "run"), "none.toml"),
        (3, ("train", RECIPE, "--data", ".", "-o", "run"), "no prepared set"),
        (2, ("train", RECIPE, "--data", ".", "-o", "run", "--workers", "-1"), "--workers"),
        (2, ("degrade", "{scan}", "-o", "out.nii.gz", "--dose", "2"), "dose is 2"),
        (3, ("degrade", "{scan}", "-o", "out.nii.gz"), "nothing says whether it is MR, CT or PT"),
        (
            2,
            ("degrade", "{scan}", "-o", "out.nii.gz", "--dose", ".5", "--factor", "2"),
            "one of them",
        ),
        (3, ("degrade", "{scan}", "-o", "{scan}", "--task", "mri-sr"), "same file"),
        (
            2,
            ("degrade", "{scan}", "-o", "out.nii.gz", "--task", "mri-sr", "--factor", "1"),
            "above 1",
        ),
        (2, ("degrade", "{scan}", "-o", "out.nii.gz", "--seed", "-1"), "--seed"),
        (2, ("evaluate", "{scan}", "--split", "tests"), "split 'tests' is unknown"),
        (2, ("evaluate", "none.nii.gz", "--consistency", "-1"), "--consistency"),
        (3, ("evaluate", "none.nii.gz"), "none.nii.gz: no such file"),
        (2, ("data",), "Missing command"),
        (2, ("data", "prepare"), "Missing command"),
        (3, ("data", "check", "."), "no prepared set"),
        (3, ("data", "prepare", "ixi", "none", "-o", "set"), "none"),
        (3, ("data", "prepare", "aapm", ".", "-o", "set"), "no CT series"),
        (3, ("data", "prepare", "release", ".", "-o", "set"), "MRI"),
        (
            2,
            ("data", "prepare", "folder", ".", "-o", "set", "--task", "ct"),
            "task 'ct' is unknown",
        ),
        (
            2,
            ("data", "prepare", "folder", ".", "-o", "set", "--task", "mri-sr", "--test", "2"),
            "test",
        ),
        (3, ("data", "prepare", "open", "-o", "set", "--scans", "none"), "none"),
        (2, ("data", "prepare", "ixii", ".", "-o", "set"), "ixii"),
        (5, ("convert", "none.pth", "-o", "out.safetensors"), "none.pth"),
    ],
)
def test_a_mistake_ends_in_one_line_and_the_exit_code_of_its_kind(
    code: int,
    words: tuple[str, ...],
    match: str,
    scan: Path,
    tiny_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    monkeypatch.setenv("COLUMNS", "200")
    filled = [word.format(scan=scan) for word in words]
    if words[0] == "restore" and "--task" not in words:
        filled += ["--task", "mri-sr", "--weights", str(tiny_weights)]
    monkeypatch.setattr(sys, "argv", ["restore-rwkv", *filled])
    with pytest.raises(SystemExit) as stop:
        main()
    told = capsys.readouterr().err.splitlines()
    assert stop.value.code == code
    assert match in told[-1]
    assert told[-1].startswith("error: ")
    assert all(line.startswith("warning: ") for line in told[:-1])
    assert list((tmp_path / "empty").iterdir()) == []


def test_info_lists_tasks_weights_backends_and_devices() -> None:
    result = run("info")
    assert result.returncode == 0, result.stderr
    for word in ("mri-sr", "ct-denoise", "light-mri-sr", "reference", "device cpu", "device cuda"):
        assert word in result.stdout


def test_info_as_json_says_what_torch_and_the_weight_files_say() -> None:
    result = run("info", "--json")
    assert result.returncode == 0, result.stderr
    facts = json.loads(result.stdout)
    assert set(facts["tasks"]) == set(TASKS)
    assert set(facts["weights"]) == set(shipped_weights())
    for name, path in shipped_weights().items():
        record = read_info(path)
        assert facts["weights"][name] == {
            "tasks": list(record.scaling),
            "parameters": record.parameters,
            "sha256": record.sha256,
        }
    assert facts["backends"] == available_backends()
    devices = {device["name"]: device for device in facts["devices"]}
    assert devices["cpu"]["threads"] == torch.get_num_threads()
    assert devices["cuda"]["count"] == torch.cuda.device_count()
    assert devices["mps"]["count"] == int(torch.backends.mps.is_available())


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["restore", "--help"],
        ["fidelity", "--help"],
        ["challenge", "--help"],
        ["data", "prepare", "folder", "--help"],
        ["info"],
    ],
    ids=" ".join,
)
def test_help_and_info_do_not_wait_for_pytorch(words: list[str]) -> None:
    """They take 0.2 s of processor time, whatever the load of the machine; PyTorch takes 1.5 s."""
    code = (
        "import atexit, sys; sys.argv = ['restore-rwkv', *sys.argv[1:]]\n"
        "atexit.register(lambda: print(sorted({'torch', 'numpy'} & set(sys.modules))))\n"
        "from restore_rwkv.apps.cli import main; main()\n"
    )
    times = []
    for _ in range(3):
        before = os.times()
        result = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60
        )
        after = os.times()
        times.append(sum(after[2:4]) - sum(before[2:4]))  # of the processes started here
        assert result.stdout.splitlines()[-1] == "[]", result.stderr
    assert min(times) < 1


def test_a_published_checkpoint_is_converted(
    tiny_network: RestoreRWKV, tmp_path: Path, call: Call
) -> None:
    torch.save(tiny_network.state_dict(), tmp_path / "net.pth")
    output = tmp_path / "net.safetensors"
    result = call("convert", tmp_path / "net.pth", "-o", output, "--task", "mri-sr")
    assert result.returncode == 0, result.stderr
    network, info = load_weights(output)
    assert info.scaling == {"mri-sr": TASKS["mri-sr"].paper_scaling}
    for key, value in tiny_network.state_dict().items():
        assert torch.equal(network.state_dict()[key], value)


def test_convert_does_not_replace_a_file_unless_allowed(
    tiny_network: RestoreRWKV, tmp_path: Path, call: Call
) -> None:
    source, output = tmp_path / "net.pth", tmp_path / "net.safetensors"
    torch.save(tiny_network.state_dict(), source)
    output.write_text("mine")
    refused = call("convert", source, "-o", output)
    assert refused.returncode == 3
    assert f"{output}: exists already" in refused.stderr
    assert output.read_text() == "mine"
    assert "same file" in call("convert", source, "-o", source, "--overwrite").stderr
    assert call("convert", source, "-o", output, "--overwrite").returncode == 0
    assert load_weights(output)[1].parameters


def test_the_choices_are_those_of_the_library() -> None:
    assert get_args(Task) == tuple(TASKS)
    assert f"{TASKS['mri-sr'].consistency} by default" in get_args(Consistency)[1].help


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["restore", "x", "-o", "y", "--task", "mri"], "did you mean 'mri-sr'? use auto, mri-sr,"),
        (["restore", "x", "-o", "y", "--plane", "axal"], "plane 'axal' is unknown; did you mean"),
        (["restore", "x", "-o", "y", "--scaling", "paper1"], "scaling 'paper1' is unknown"),
        (["convert", "x", "-o", "y", "--task", "all"], "did you mean 'all-in-one'?"),
        (["data", "prepare", "folder", "x", "-o", "y"], "Missing option '--task' / '-t'. Choose"),
    ],
)
def test_a_wrong_choice_is_named_in_one_line(
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["restore-rwkv", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    printed = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    ("message", "printed"),
    [
        ("give task='mri-sr' or task='ct-denoise'", "give --task mri-sr or --task ct-denoise"),
        ("give --task mri-sr|ct-denoise|pet-synth", "give --task mri-sr|ct-denoise|pet-synth"),
        ("is it CT (task='ct-denoise')?", "is it CT (--task ct-denoise)?"),
        ("leave them out with skip=True", "leave them out with --skip-faulty"),
        ("name another file, or give overwrite=True", "name another file, or give --overwrite"),
        ("give patient=PATTERN, such as '^[^/]+'", "give --patient PATTERN, such as '^[^/]+'"),
        ("or give validation=0 or test=0.", "or give --validation 0 or --test 0."),
        ("give scale=2.5; or none", "give --scale 2.5; or none"),
        ("give series='2 b'", "give --series '2 b'"),
        ("give factor=F if it is 1/F", "give --factor F if it is 1/F"),
        ('use backend="torch"', 'use backend="torch"'),
        ("TRITON_INTERPRET=1, package==1.0", "TRITON_INTERPRET=1, package==1.0"),
        ("/data/task=rest/scan.nii: damaged", "/data/task=rest/scan.nii: damaged"),
        ("image is 3 x 4; give one of 5 x 6", "image is 3 x 4; give one of 5 x 6"),
    ],
)
def test_arguments_in_messages_become_flags(message: str, printed: str) -> None:
    assert with_flags(message, option_flags()) == printed


def test_every_option_has_its_flag() -> None:
    flags = option_flags()
    assert flags["skip"] == "--skip-faulty"
    assert flags["as_json"] == "--json"
    assert all(flag.startswith("--") for flag in flags.values())


@pytest.mark.parametrize(
    ("message", "printed"),
    [
        ("dose is 2; give less", "--dose is 2; give less"),
        ("scale 9 is out of range", "--scale 9 is out of range"),
        ("memory: 1 MiB hold no tile", "--memory: 1 MiB hold no tile"),
        ("dose and factor are both given", "--dose and --factor are both given"),
        ("validation 1 and test 2 leave nothing", "--validation 1 and --test 2 leave nothing"),
        ("skip is 'x'", "--skip-faulty is 'x'"),
        ("planes 'all': are; leave planes out", "--planes 'all': are; leave --planes out"),
        ("recipe: data.crop is 0", "recipe: data.crop is 0"),
        ("plane axial: no geometry; leave plane at auto", None),
    ],
)
def test_settings_in_messages_become_flags(message: str, printed: str | None) -> None:
    printed = printed or "plane axial: no geometry; leave --plane at auto"
    assert user_message(ConfigError(message), option_flags()) == printed


def test_a_file_named_like_an_option_keeps_its_name() -> None:
    message = "data: no prepared set; leave it out"
    assert user_message(InputError(message), option_flags()) == message


def test_a_bug_is_not_a_message() -> None:
    assert user_message(KeyError("x"), {}) is None
    assert user_message(ConfigError("give task='x'"), {"task": "--task"}) == "give --task x"


def test_the_shell_completes_commands() -> None:
    assert "--install-completion" in run("--help").stdout
    result = subprocess.run(
        [sys.executable, "-m", "restore_rwkv"],
        capture_output=True,
        text=True,
        timeout=60,
        env={
            **os.environ,
            "_RESTORE_RWKV_COMPLETE": "complete_bash",
            "COMP_WORDS": "restore-rwkv de",
            "COMP_CWORD": "1",
        },
    )
    assert result.stdout.split() == ["degrade", "demo"]


@pytest.mark.slow
def test_a_killed_restoration_leaves_no_half_file(
    scan: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    """Killed just before the file gets its name: only a hidden partial file may be left."""
    code = (
        "import os, signal, sys, restore_rwkv\n"
        "os.link = os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "restore_rwkv.restore(sys.argv[1], sys.argv[2], task='mri-sr', weights=sys.argv[3])\n"
    )
    output = tmp_path / "out.nii.gz"
    killed = subprocess.run([sys.executable, "-c", code, scan, output, tiny_weights], timeout=120)
    assert killed.returncode != 0
    assert not output.exists()
    assert not (tmp_path / "out.restoration.json").exists()


def test_importing_is_quick_and_loads_no_reader_or_plotter() -> None:
    code = (
        "import torch, time, sys, json\n"
        "start = time.perf_counter(); import restore_rwkv\n"
        "heavy = {'pydicom', 'highdicom', 'matplotlib', 'PIL', 'rich', 'typer', 'scipy'}\n"
        "print(json.dumps([time.perf_counter() - start, sorted(heavy & set(sys.modules))]))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    seconds, loaded = json.loads(result.stdout)
    assert seconds < 2
    assert loaded == []


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GiB", 2 << 30), ("800MB", 800_000_000), ("1.5 kib", 1536), ("77", 77), ("3g", 3 * 10**9)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-2GiB", "2 pounds", "1e9", "9" * 400])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a size"):
        parse_memory(text)


def test_evaluate_names_scan_and_protocol(tiny_weights: Path, tmp_path: Path, call: Call) -> None:
    """Slices without contrast are counted, and square brackets are no markup."""
    image = np.random.default_rng(0).uniform(0, 900, (20, 24, 3)).astype(np.float32)
    image[..., 1] = 0
    np.save(tmp_path / "scan[1].npy", image)
    scan = tmp_path / "scan[1].npy"
    result = call("evaluate", scan, "--task", "mri-sr", "--weights", tiny_weights)
    assert result.returncode == 0, result.stderr
    missing = "psnr: 3 values are missing, 3 because the truth is constant"
    for words in ("scan[1].npy", "paper protocol", "2 of 3", missing):
        assert words in " ".join(result.stdout.split())


def test_flags_of_the_measured_data_and_the_ensemble_reach_the_record(
    scan: Path, tiny_weights: Path, tmp_path: Path, call: Call
) -> None:
    words = ("-o", tmp_path / "out.nii.gz", "-t", "mri-sr", "--weights", tiny_weights)
    flags = ("--consistency", "3", "--factor", "2", "--ensemble")
    planned = call("restore", scan, *words, *flags, "--dry-run")
    assert "ensemble: mean over 4 turns and mirrors, so 4 passes\n" in planned.stdout
    assert "consistency: 3 steps keep the measured 20 x 16 samples" in planned.stdout
    assert call("restore", scan, *words, *flags).returncode == 0
    record = json.loads((tmp_path / "out.restoration.json").read_text())
    assert (record["consistency"], record["kept"], record["ensemble"]) == (3, [20, 16], True)


def test_flags_of_the_strength_reach_the_plan_and_the_record(
    tiny_network: RestoreRWKV, tmp_path: Path, call: Call
) -> None:
    weights, rule = tmp_path / "ct.safetensors", {"ct-denoise": ScalingRule("fixed", 0.0, 40.0)}
    strength = {"ct-denoise": Strength(9.0, ((0.0, 0.0), (1.0, 0.5)))}
    save_weights(weights, tiny_network, scaling=rule, training={}, strength=strength)
    noise = 3 * np.random.default_rng(0).standard_normal((40, 40, 2))
    data = np.where(np.arange(40)[:, None, None] < 35, 40, -1000) + noise
    nib.save(nib.Nifti1Image(data.astype(np.float32), np.eye(4)), tmp_path / "ct.nii.gz")
    words = ("restore", tmp_path / "ct.nii.gz", "-o", tmp_path / "out.nii.gz", "-t", "ct-denoise")
    words += ("--weights", weights)
    planned = call(*words, "--factor", "4", "--dry-run")
    assert "strength: 0.43, at 1/4 of the dose\n" in planned.stdout
    assert call(*words, "--factor", "4").returncode == 0
    record = json.loads((tmp_path / "out.restoration.json").read_text())
    assert (record["factor"], round(record["strength"], 3)) == (4, 0.433)
    both = call(*words, "--factor", "4", "--strength", "1", "--overwrite")
    assert both.stderr == "error: --strength and --factor are both given; give one of them\n"
    planned = call(*words, "--strength", "0.5", "--overwrite", "--dry-run")
    assert "strength: 0.50, as given\n" in planned.stdout
    quiet = call(*words, "--overwrite")
    assert quiet.stdout.count("\n") == 1


def test_evaluate_takes_the_flags_of_restore(
    scan: Path, tiny_weights: Path, tmp_path: Path, call: Call
) -> None:
    tables = [
        call("evaluate", scan, "-t", "mri-sr", "--weights", tiny_weights, *flags).stdout
        for flags in ((), ("--consistency", "0"), ("--consistency", "0", "--ensemble"))
    ]
    assert len(set(tables)) == 3


def test_a_mistake_in_training_leaves_no_folder(tmp_path: Path, call: Call) -> None:
    recipe = ROOT / "recipes" / "light-mri-sr.toml"
    result = call("train", recipe, "--data", tmp_path, "-o", tmp_path / "run")
    assert result.returncode == 3
    assert "no prepared set" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_system_names_file_and_remedy(
    scan: Path, tiny_weights: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **_options: object) -> None:
        raise OSError(28, "No space left on device", "/disk/out.nii.gz")

    monkeypatch.setattr("restore_rwkv.restoration.Restorer.file", full)
    words = ("-o", tmp_path / "out.nii.gz", "-t", "mri-sr", "--weights", tiny_weights)
    result = call("restore", scan, *words)
    assert result.returncode == 6
    assert result.stderr.startswith("error: /disk/out.nii.gz: No space left on device; check")


def test_small_errors_keep_their_digits() -> None:
    """RMSE of PET is some hundredths of an SUV, of MRI some tens."""
    rows = [score_row("x", MeanScore(37.0, 0.9, rmse, 4, 0)) for rmse in (0.08634, 67.109)]
    assert [row[3] for row in rows] == ["0.0863", "67.11"]


@pytest.mark.slow
def test_warnings_name_flags_too(scan: Path, tiny_weights: Path, tmp_path: Path) -> None:
    image = nib.load(scan)
    air = -1000 + np.arange(5)  # not all the same, as padding would be
    values = np.where(image.get_fdata() > 300, 40.5, air).astype(np.float32)
    nib.save(nib.Nifti1Image(values, image.affine), tmp_path / "ct.nii.gz")
    words = ("-o", tmp_path / "out.nii.gz", "-t", "mri-sr", "--weights", tiny_weights)
    result = run("restore", tmp_path / "ct.nii.gz", *words)
    assert result.returncode == 0
    assert "impossible for MRI; is it CT (--task ct-denoise)?" in result.stderr


def test_a_dry_run_prints_the_plan_and_refusals_and_writes_nothing(
    scan: Path, tiny_weights: Path, tmp_path: Path, call: Call
) -> None:
    output = tmp_path / "out.nii.gz"
    words = ("restore", scan, "-o", output, "-t", "mri-sr", "--weights", tiny_weights, "--dry-run")
    result = call(*words)
    assert result.returncode == 0, result.stderr
    assert "slices: 5 of 40 x 33 across axis 2, whole" in result.stdout
    assert not output.exists()
    output.write_text("mine")
    refused = call(*words, "--memory", "1kB")
    assert refused.returncode == 3
    assert "out.nii.gz: exists already" in refused.stderr
    assert "allow at least" in refused.stderr
    assert output.read_text() == "mine"


def test_a_file_named_like_an_argument_keeps_its_name(call: Call, tmp_path: Path) -> None:
    scan = tmp_path / "task=rest.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((9, 9, 3), np.int16), np.eye(4)), scan)
    result = call("restore", scan, "-o", tmp_path / "out.nii.gz")
    assert "error: task=rest.nii.gz: nothing says" in result.stderr
    assert "give --task mri-sr" in result.stderr


def test_weights_for_all_tasks_are_no_task(call: Call, scan: Path, tmp_path: Path) -> None:
    result = call("restore", scan, "-o", tmp_path / "o.nii", "--task", "all-in-one")
    assert "give the scan's task" in result.stderr
    assert "light-all-in-one" in result.stderr
