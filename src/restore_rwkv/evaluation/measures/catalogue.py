"""All measures of image quality, by name."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from restore_rwkv.errors import ConfigError
from restore_rwkv.evaluation.measures.measure import Measure
from restore_rwkv.options import nearest


@functools.cache
def all_measures() -> dict[str, Measure]:
    """Return every measure by its name, those of the paper's protocol first."""
    from restore_rwkv.evaluation.measures.protocols import PROTOCOL_MEASURES
    from restore_rwkv.evaluation.measures.similarity import SIMILARITY_MEASURES
    from restore_rwkv.evaluation.physical import PHYSICAL_MEASURES

    every = (*PROTOCOL_MEASURES, *SIMILARITY_MEASURES, *PHYSICAL_MEASURES)
    return {measure.name: measure for measure in every}


def measures_named(names: Sequence[str]) -> tuple[Measure, ...]:
    """Return measures by name, in that order and each once.

    Raises:
        ConfigError: a name is unknown; the message names the nearest.
    """
    known = all_measures()
    for name in names:
        if name not in known:
            raise ConfigError(
                f"measure {name!r} is unknown, the nearest is {nearest(name, known)!r}; choose "
                f"from {', '.join(known)}"
            )
    return tuple(known[name] for name in dict.fromkeys(names))
