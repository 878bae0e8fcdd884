from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from restore_rwkv.apps.node.config import Peer
from restore_rwkv.apps.node.config_file import read_config, read_secret
from restore_rwkv.errors import ConfigError

SMALLEST = """
folder = "state"
{top}
[[peers]]
name = "ct1"
ae_title = "CT1"
{peer}
[[rules]]
name = "all"
send_to = ["pacs"]
{rule}
[[destinations]]
name = "pacs"
kind = "dimse"
ae_title = "PACS"
host = "127.0.0.1"
port = 4242
{destination}
{end}
"""


def write(folder: Path, **parts: str) -> Path:
    path = folder / "node.toml"
    texts = dict.fromkeys(("top", "peer", "rule", "destination", "end"), "") | parts
    path.write_text(SMALLEST.format(**texts))
    return path


def test_the_smallest_file_is_safe_by_default(tmp_path: Path) -> None:
    config = read_config(write(tmp_path))
    assert config.folder == tmp_path / "state"
    assert config.host == "127.0.0.1"
    assert config.log_patient_data is False
    assert config.rules[0].fit == "doubtful"
    assert config.limits.series_instances == 5000


def test_sizes_are_written_with_their_unit(tmp_path: Path) -> None:
    config = read_config(
        write(tmp_path, top='quota = "2TB"', end='[limits]\ninstance_bytes = "1 GiB"')
    )
    assert (config.quota, config.limits.instance_bytes) == (2 * 10**12, 2**30)


@pytest.mark.parametrize(
    ("part", "text", "message"),
    [
        ("top", "qota = 3", "unknown key 'qota' in the top level; did you mean 'quota'?"),
        ("top", 'quota = "much"', "quota is 'much'; give a size such as"),
        ("top", "quota = 0", "quota is 0; give a size"),
        ("top", "port = 70000", "port is 70000; give a port, 1 to 65535"),
        ("top", 'ae_title = "A\\\\B"', "ae_title is 'A\\\\B'; give an AE title"),
        ("top", 'ae_title = "SEVENTEEN-LETTERS"', "give an AE title: 1 to 16 characters"),
        ("top", 'ae_title = " "', "give an AE title"),
        ("top", "quiet_seconds = 0", "quiet_seconds is 0; give a number of seconds above 0"),
        ("top", "quiet_seconds = nan", "quiet_seconds is nan; give a number of seconds above 0"),
        ("top", "log_patient_data = 1", "log_patient_data is 1; choose from False, True"),
        ("top", "peers2 = 1", "unknown key 'peers2'"),
        ("top", "limits = 3", "limits is 3; give a table"),
        ("peer", 'address = "10.0.0.300"', "peers 1: peers.address is '10.0.0.300'"),
        ("peer", 'address = "10.0.0.1/8"', "peers.address is '10.0.0.1/8' ("),
        ("rule", 'fit = "maybe"', "rules 1: rules.fit is 'maybe'; choose from 'fit', 'doubtful'"),
        ("rule", "modality = 3", "rules.modality is 3; give a pattern"),
        ("rule", "strength = 2.0", "rules 1: rules.strength is 2; give 0 to 1"),
        ("rule", 'action = "ignore"', "send_to is given with action 'ignore'"),
        ("rule", 'weights = "nothing"', "rules 1: weights: nothing: no such file or shipped"),
        ("rule", '[[rules]]\nname = "all"\naction = "ignore"', "rules has two named 'all'"),
        ("rule", '[[rules]]\nname = "b"\nsend_to = ["x"]', "rule 'b': send_to names 'x', which"),
        ("destination", 'url = "http://x"', "destinations 1: destinations of kind 'dimse': leave"),
        ("destination", "tls = true", "destination 'pacs' is over TLS, but the table tls is"),
        ("end", '[[destinations]]\nname = "w"\nkind = "web"', "destinations 2: destinations of"),
        ("end", '[[archives]]\nname = "a"\nurl = "ftp://x"', "archives 1: archives.url is 'ftp:"),
        ("end", '[[archives]]\nname = "a"\nurl = "https://u:p@x"', "archives.url holds credent"),
        ("end", '[[archives]]\nname = "a b"\nurl = "https://x"', "archives.name is 'a b'; give 1"),
        ("end", '[archives]\nname = "a"', "archives is a table; write [[archives]] for each"),
        ("end", '[tls]\nkey = "none.pem"', "key is "),
    ],
)
def test_a_mistake_is_told_with_its_file_table_and_key(
    tmp_path: Path, part: str, text: str, message: str
) -> None:
    path = write(tmp_path, **{part: text})
    with pytest.raises(ConfigError, match=re.escape(message)) as told:
        read_config(path)
    assert str(told.value).startswith(f"{path}: ")
    assert "\n" not in str(told.value)


def test_a_node_that_nothing_can_reach_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text('folder = "x"\n[[rules]]\nname = "a"\naction = "ignore"\n')
    with pytest.raises(ConfigError, match="neither peers nor archives"):
        read_config(path)


def test_a_file_that_is_missing_or_not_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give the file of the node"):
        read_config(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not valid TOML"):
        read_config(tmp_path / "bad.toml")


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such permissions")
def test_a_secret_that_everyone_may_read_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("s3cret\n")
    secret.chmod(0o644)
    archive = (
        '[[archives]]\nname = "a"\nurl = "https://pacs"\nuser = "u"\npassword_file = "password"'
    )
    with pytest.raises(ConfigError, match=r"archives 1: .*everyone may read it; run chmod o-r"):
        read_config(write(tmp_path, end=archive))
    secret.chmod(0o600)
    config = read_config(write(tmp_path, end=archive))
    assert config.archives[0].password_file == secret
    assert read_secret(secret) == "s3cret"


def test_a_secret_is_one_line(tmp_path: Path) -> None:
    for number, text in enumerate(("", "two\nlines", "\n")):
        secret = tmp_path / str(number)
        secret.write_text(text)
        secret.chmod(0o600)
        with pytest.raises(ConfigError, match="not one line"):
            read_secret(secret)


@pytest.mark.parametrize("url", ["http://pacs/dicom-web", "http://10.0.0.1:8042/dicom-web"])
def test_credentials_do_not_go_over_plain_http_to_other_machines(tmp_path: Path, url: str) -> None:
    (tmp_path / "token").write_text("t")
    (tmp_path / "token").chmod(0o600)
    table = f'[[archives]]\nname = "a"\nurl = "{url}"\ntoken_file = "token"'
    with pytest.raises(ConfigError, match="could be read on the way; give https"):
        read_config(write(tmp_path, end=table))
    local = table.replace(url, "http://127.0.0.1:8042/dicom-web")
    assert read_config(write(tmp_path, end=local)).archives[0].token_file == tmp_path / "token"


def test_a_weight_file_is_relative_to_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "own.safetensors").write_bytes(b"")
    config = read_config(write(tmp_path, rule='weights = "own.safetensors"'))
    assert config.rules[0].weights == str(tmp_path / "own.safetensors")


def test_a_peer_is_known_by_title_and_address() -> None:
    anywhere = Peer(name="a", ae_title="CT1")
    assert anywhere.allows("CT1 ", "192.0.2.1")
    assert not anywhere.allows("CT2", "192.0.2.1")
    network = Peer(name="a", ae_title="CT1", address="10.0.3.0/24")
    assert network.allows("CT1", "10.0.3.7")
    assert network.allows("CT1", "::ffff:10.0.3.7")
    assert not network.allows("CT1", "10.0.4.7")
    assert not network.allows("CT1", "fe80::1%eth0")
