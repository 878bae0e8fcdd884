"""Memory that is predicted for the activations of a peer, against the peak of a process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from restore_rwkv.peers import PEERS, PeerConfig
from tests.helpers import ROOT

SIDE = 256
PEAK = """
import sys, torch
from benchmarks.timing import peak_bytes
from restore_rwkv.peers import PeerConfig, build_peer
torch.set_num_threads(1)
network = build_peer(PeerConfig(sys.argv[1])).merged()
image = torch.rand(1, 1, int(sys.argv[2]), int(sys.argv[2]))
with torch.inference_mode():
    network(image[..., :32, :32])
    print(peak_bytes(lambda: network(image)))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.parametrize("name", PEERS)
def test_the_peak_is_within_a_factor_of_two_of_the_prediction(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PEAK, name, str(SIDE)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    predicted = SIDE**2 * PeerConfig(name).bytes_per_pixel
    assert predicted / 2 < int(done.stdout.splitlines()[-1]) < 2 * predicted
