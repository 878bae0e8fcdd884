"""How long to wait before something that failed is tried again."""

from __future__ import annotations

import random

LONGEST = 3600.0
"""Longest wait, in seconds."""


def waiting_time(attempt: int, first: float) -> float:
    """Return the seconds to wait after an attempt that failed.

    They double with each attempt up to `LONGEST`. Up to half of them is left out at random, so
    that what failed together is not tried again together.

    Args:
        attempt: number of the attempt, from 1.
        first: wait after the first one, in seconds.
    """
    longest = max(first, LONGEST)
    return min(longest, first * 2.0 ** min(attempt - 1, 32)) * random.uniform(0.5, 1.0)
