"""The compared networks: sizes, forms, and what is refused."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys

import pytest
import torch

from restore_rwkv.errors import ConfigError, OperatorError
from restore_rwkv.model import PRESETS, RestoreRWKV
from restore_rwkv.peers import PEERS, PeerConfig, PeerNetwork, build_peer

# (width, depth) with which each network takes little time.
SMALL: dict[str, tuple[int, tuple[int, ...]]] = {
    "unet": (4, ()),
    "restormer": (8, (1, 1, 1, 1, 1)),
    "dncnn": (8, (4,)),
    "redcnn": (8, (5,)),
    "edsr": (8, (2,)),
    "srcnn": (8, ()),
    "nafnet": (4, (1, 1, 1, 1, 1, 1, 1, 1, 1)),
    "swinir-light": (16, (2, 2, 2, 2)),
}


def small(name: str, **settings: bool) -> PeerNetwork:
    torch.manual_seed(0)
    width, depth = SMALL[name]
    network = build_peer(PeerConfig(name, width, depth, **settings))
    with torch.no_grad():  # scales that start at 0 would hide what their branches compute
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return network


def class_of(name: str) -> type[PeerNetwork]:
    module, _, cls = PEERS[name].place.partition(":")
    found: type[PeerNetwork] = getattr(importlib.import_module(f"restore_rwkv.peers.{module}"), cls)
    return found


def test_every_peer_is_tried() -> None:
    assert SMALL.keys() == PEERS.keys()


@pytest.mark.parametrize("name", PEERS)
def test_the_parameters_are_those_of_the_docstring_and_near_those_of_light(name: str) -> None:
    with torch.device("meta"):
        ours = sum(p.numel() for p in RestoreRWKV(PRESETS["light"]).parameters())
        count = sum(p.numel() for p in build_peer(PeerConfig(name)).parameters())
    text = class_of(name).__doc__ or ""
    assert f"{count:,}" in re.findall(r"\d+(?:,\d{3})+", text)
    assert ours / 2 < count < 2 * ours


@pytest.mark.parametrize(
    ("name", "width", "count"),
    [("dncnn", 64, 556_097), ("srcnn", 64, 57_281), ("redcnn", 96, 1_848_865)],
)
def test_published_sizes_are_reached_by_the_width(name: str, width: int, count: int) -> None:
    with torch.device("meta"):
        network = build_peer(PeerConfig(name, width))
    assert sum(p.numel() for p in network.parameters()) == count
    assert f"{count:,}" in (class_of(name).__doc__ or "")


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("name", PEERS)
def test_images_keep_any_size(name: str, told: bool) -> None:
    network = small(name, noise_level=told).eval()
    for shape in ((1, 1, 1, 1), (2, 1, 37, 51), (1, 1, 5, 64)):
        with torch.no_grad():
            restored = network(torch.rand(shape), torch.rand(shape[0]) if told else None)
        assert restored.shape == shape
        assert restored.isfinite().all()


@pytest.mark.parametrize("name", PEERS)
def test_the_inference_form_is_the_same_function(name: str) -> None:
    network, image = small(name), torch.rand(2, 1, 37, 51)
    with torch.no_grad():
        for _ in range(3):
            network(image)  # so that running statistics are not those of the start
        before = {key: x.clone() for key, x in network.state_dict().items()}
        truth = network.eval()(image)
    merged = network.merged()
    torch.testing.assert_close(merged(image), truth)
    torch.testing.assert_close(merged.merged()(image), truth)
    assert merged.is_merged
    assert not network.is_merged
    assert not merged.training
    assert not any(parameter.requires_grad for parameter in merged.parameters())
    assert not any("norms" in key for key in merged.state_dict() if name == "dncnn")
    assert all(torch.equal(x, before[key]) for key, x in network.state_dict().items())
    held = {x.data_ptr() for x in network.state_dict().values()}
    assert held.isdisjoint(x.data_ptr() for x in merged.state_dict().values())


@pytest.mark.parametrize("name", PEERS)
def test_a_residual_starts_at_the_identity_and_another_network_says_why_not(name: str) -> None:
    image = torch.rand(1, 1, 24, 40)
    network = small(name)
    if PEERS[name].residual:
        network.start_at_identity()
        assert torch.equal(network(image), image)
    else:
        with pytest.raises(ConfigError, match=f"{name}.* no residual"):
            network.start_at_identity()
    other = small(name, residual=True)
    other.start_at_identity()
    assert torch.equal(other(image), image)


@pytest.mark.parametrize("name", PEERS)
def test_muon_takes_the_weights_between_hidden_channels(name: str) -> None:
    network = small(name)
    shapes = {key: p.shape for key, p in network.named_parameters()}
    mixing = network.mixing_weights()
    assert mixing < shapes.keys()
    assert all(len(shapes[key]) in (2, 4) and min(shapes[key][:2]) > 1 for key in mixing)
    assert f"{network.first}.weight" in shapes.keys() - mixing
    assert f"{network.last}.weight" in shapes.keys() - mixing
    assert not any("position" in key or "depthwise" in key for key in mixing)


@pytest.mark.parametrize("name", [name for name, peer in PEERS.items() if peer.recomputes])
def test_recomputed_activations_give_the_same_gradients(name: str) -> None:
    gradients = []
    for recomputes in (False, True):
        network = small(name)
        network.checkpoint_activations = recomputes
        network(torch.ones(1, 1, 16, 16).cumsum(-1)).square().sum().backward()
        gradients.append([p.grad for p in network.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert plain is not None
        torch.testing.assert_close(recomputed, plain)


@pytest.mark.parametrize("name", PEERS)
def test_one_that_is_told_the_noise_starts_from_one_that_is_not(name: str) -> None:
    image, plain, told = torch.rand(1, 1, 32, 32), small(name), small(name, noise_level=True)
    told.copy_from(plain)
    torch.testing.assert_close(told.eval()(image, 0.7), plain.eval()(image))
    with pytest.raises(OperatorError, match="another configuration or form"):
        plain.copy_from(told)
    with pytest.raises(OperatorError, match="another configuration or form"):
        plain.copy_from(RestoreRWKV(PRESETS["light"]))


def test_shifted_windows_do_not_see_the_opposite_border() -> None:
    network = small("swinir-light").eval()
    image = torch.rand(1, 1, 128, 24)
    changed = image.clone()
    changed[..., -4:, :] = 9
    with torch.no_grad():
        difference = (network(changed) - network(image)).abs().amax(dim=(0, 1, 3))
    assert difference[-4:].min() > 0
    assert difference[:16].max() == 0


def test_a_shifted_window_is_the_attention_between_neighbours() -> None:
    from restore_rwkv.peers.swinir import _Block

    torch.manual_seed(0)
    block = _Block(16, shifted=True).double()
    torch.nn.init.normal_(block.position)
    image = torch.randn(1, 16, 8, 16, dtype=torch.float64)
    q, k, v = block.qkv(block.norm1(image)).split(16, dim=-1)
    attended = torch.empty_like(image)
    for row in range(16):
        for column in range(8):
            # Windows begin 4 pixels from the border, those at the border are smaller.
            rows, columns = (
                range(max(0, (x + 4) // 8 * 8 - 4), min(n, (x + 4) // 8 * 8 + 4))
                for x, n in ((row, 16), (column, 8))
            )
            near = [(i, j) for i in rows for j in columns]
            places = torch.tensor([(row - i + 7) * 15 + column - j + 7 for i, j in near])
            keys = torch.stack([k[0, i, j] for i, j in near])
            scores = keys @ q[0, row, column] / 4 + block.position[places, 0]
            values = torch.stack([v[0, i, j] for i, j in near])
            attended[0, row, column] = scores.softmax(0) @ values
    truth = image + block.projection(attended)
    truth = truth + block.mlp(block.norm2(truth))
    torch.testing.assert_close(block(image), truth)


def test_training_goes_on_after_inference_mode() -> None:
    from restore_rwkv.peers import swinir

    for kept in (swinir._offsets, swinir._apart):
        kept.cache_clear()
    network, image = small("swinir-light"), torch.rand(1, 1, 16, 16)
    with torch.inference_mode():
        network(image)
    network(image).sum().backward()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "unett"}, "network 'unett' is unknown; did you mean 'unet'"),
        ({"name": "unet", "widht": 8}, "unknown key 'widht'; did you mean 'width'"),
        ({"name": "restormer", "width": 12}, "multiple of 8"),
        ({"name": "dncnn", "width": 5000}, "width is 5000; give at most 4096"),
        ({"name": "dncnn", "width": -1}, "width is -1"),
        ({"name": "dncnn", "depth": [3, 3]}, "depth is [3, 3]; give 1 number, with a sum"),
        ({"name": "unet", "depth": [2, 2]}, "depth is [2, 2]; leave it out, for network 'unet'"),
        ({"name": "edsr", "depth": [100000]}, "sum of at most 1024"),
        ({"name": "edsr", "depth": [0]}, "depth"),
        ({"name": "dncnn", "depth": [1]}, "config: depth is [1]; give at least 2"),
        ({"name": "unet", "residual": 1}, "residual"),
        ({"name": ["unet"]}, "name"),
    ],
)
def test_settings_are_refused_by_name(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        PeerConfig.from_dict(settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", PEERS)
def test_a_configuration_is_filled_in_and_goes_through_plain_values(name: str) -> None:
    config = PeerConfig(name)
    assert (config.width, config.depth) == (PEERS[name].width, PEERS[name].depth)
    assert PeerConfig.from_dict(config.to_dict()) == config
    assert isinstance(config.to_dict()["depth"], list)


@pytest.mark.parametrize(
    ("image", "level", "message"),
    [
        (torch.zeros(1, 2, 8, 8), None, r"give \(B, 1, H, W\)"),
        (torch.zeros(1, 1, 0, 8), None, r"give \(B, 1, H, W\)"),
        (torch.zeros(1, 8, 8), None, r"give \(B, 1, H, W\)"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.int32), None, "float type"),
        (torch.zeros(1, 1, 8, 8), 0.5, "noise_level"),
    ],
)
def test_images_that_do_not_suit_are_refused(
    image: torch.Tensor, level: float | None, message: str
) -> None:
    with pytest.raises(OperatorError, match=message):
        small("dncnn")(image, level)


@pytest.mark.parametrize("name", ["unet", "restormer"])
def test_without_monai_its_networks_say_what_to_install(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("basic_unet", "restormer"):
        monkeypatch.setitem(sys.modules, f"monai.networks.nets.{module}", None)
    with pytest.raises(ConfigError, match=r"needs MONAI.*pip install 'restore-rwkv\[peers\]'"):
        build_peer(PeerConfig(name))


def test_names_and_configurations_need_neither_pytorch_nor_monai() -> None:
    program = (
        "import sys; from restore_rwkv.peers import PEERS, PeerConfig; "
        "[PeerConfig(name).bytes_per_pixel for name in PEERS]; "
        "from restore_rwkv.model import named_config; "
        "[named_config(name) for name in PEERS]; "
        "assert not {'torch', 'monai'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
