"""Exit code 0 if the DICOM node of this machine or pod is healthy, and 1 with the reason if not.

    python healthy.py [--port 9104] [--except disk]

For probes of containers: the node shows its health on 127.0.0.1 only, which nothing outside of the
container reaches. `--except` names a fault that a restart does not remove, such as a full disk.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.request

_SECONDS = 5


def main() -> None:
    """Ask the node, and say what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=9104, help="metrics_port of the node")
    parser.add_argument("--except", dest="ignored", action="append", default=[], metavar="PART")
    options = parser.parse_args()
    try:
        found = faults(options.port)
    except (OSError, ValueError) as error:
        sys.exit(f"the node does not answer: {error}")
    serious = {part: text for part, text in found.items() if part not in options.ignored}
    if serious:
        sys.exit("; ".join(f"{part}: {text}" for part, text in serious.items()))


def faults(port: int) -> dict[str, str]:
    """Return what is wrong by part, as /health of a node says it.

    Raises:
        OSError: nothing answers.
        ValueError: something else answers.
    """
    # Not through a proxy of the environment, and with an end.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/health", timeout=_SECONDS) as answer:
            body = answer.read()
    except urllib.error.HTTPError as error:  # 503: it answers, with what is wrong
        body = error.read()
    values = json.loads(body)
    if not isinstance(values, dict) or not isinstance(values.get("faults"), dict):
        raise ValueError("something else than a node answers")
    return values["faults"]


if __name__ == "__main__":
    main()
