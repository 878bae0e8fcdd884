from __future__ import annotations

import io
import logging

from restore_rwkv.apps.node.calm_log import CalmLog
from tests.helpers.node_parts import Clock


def test_warnings_of_one_kind_are_limited_and_those_left_out_are_counted() -> None:
    clock, stream = Clock(), io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(CalmLog(clock))
    logger = logging.Logger("node")
    logger.addHandler(handler)

    def refuse(number: int) -> None:
        logger.warning("instance %d refused", number)

    for number in range(3000):
        refuse(number)
    for _ in range(2):
        logger.warning("another line")
    lines = stream.getvalue().splitlines()
    assert lines == [*(f"instance {n} refused" for n in range(20)), *2 * ["another line"]]
    clock.now += 61
    refuse(1)
    refuse(2)
    assert stream.getvalue().splitlines()[22:] == [
        "instance 1 refused (and 2980 more lines like this before)",
        "instance 2 refused",
    ]
    for _ in range(100):
        logger.error("given up")
    assert stream.getvalue().count("given up") == 100
