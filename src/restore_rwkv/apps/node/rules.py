"""Rules of the node: which series are restored, with what, and where the results go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, StringConstraints

from restore_rwkv.errors import ConfigError
from restore_rwkv.options import Expected, validated

Name = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"),
    Expected("1 to 64 letters, digits, dots, dashes and underscores"),
]
"""Name of a peer, rule, destination or archive, as logs, metrics and the queue have it."""


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Patterns = Annotated[
    tuple[str, ...],
    BeforeValidator(_several),
    Expected('a pattern such as "CT*", or a list of them'),
]

HEADER_KEYWORDS = {
    "modality": "Modality",
    "station": "StationName",
    "description": "SeriesDescription",
    "protocol": "ProtocolName",
    "manufacturer": "Manufacturer",
}
"""Keyword of the element that each condition of a rule looks at; `peer` looks at the origin."""

NO_RULE = "no rule matches"


@validated("node", table="rules")
@dataclass(frozen=True, kw_only=True)
class Rule:
    """What is done with the series that meet all conditions of the rule.

    A condition is one pattern or several, of which one has to match: `*` stands for any text, `?`
    for one character, `[...]` for one of several; upper and lower case are alike. A condition that
    is left out holds for every series. A header without the element matches only `*`.

    Attributes:
        name: for logs, metrics and the queue.
        modality: of Modality, such as "CT".
        station: of StationName.
        description: of SeriesDescription.
        protocol: of ProtocolName.
        manufacturer: of Manufacturer.
        peer: of the AE title of the sender, or of the name of the archive; a pattern with a colon,
            such as "web:*", of either with "dimse:" or "web:" before it.
        action: "restore", or "ignore", which refuses the series with that as the reason.
        fit: which series are restored, of those that the weights were compared with: "fit", those
            with nothing against them; "doubtful", those with warnings too; "any", all.
        task: what for; "auto" chooses by the modality.
        weights: name of shipped weights, or path of a weight file; None for those of the task.
        strength: CT, PET: part of the correction that is applied, 0 to 1; None as calibrated.
        send_to: names of the destinations.
    """

    name: Name
    modality: Patterns = ()
    station: Patterns = ()
    description: Patterns = ()
    protocol: Patterns = ()
    manufacturer: Patterns = ()
    peer: Patterns = ()
    action: Literal["restore", "ignore"] = "restore"
    fit: Literal["fit", "doubtful", "any"] = "doubtful"
    task: Literal["auto", "mri-sr", "ct-denoise", "pet-synth"] = "auto"
    weights: str | None = None
    strength: float | None = None
    send_to: Annotated[tuple[str, ...], Expected("a list of names of destinations")] = ()

    def __post_init__(self) -> None:
        if self.strength is not None and not 0 <= self.strength <= 1:
            raise ConfigError(f"node: rules.strength is {self.strength:g}; give 0 to 1")
        if self.action == "restore" and not self.send_to:
            raise ConfigError(
                "node: rules.send_to is empty; give the name of a destination, or action 'ignore'"
            )
        if self.action == "ignore" and self.send_to:
            raise ConfigError("node: rules.send_to is given with action 'ignore'; leave one out")

    def conditions(self) -> str:
        """Return the conditions in words."""
        words = [
            f"{name} {' or '.join(getattr(self, name))}"
            for name in (*HEADER_KEYWORDS, "peer")
            if getattr(self, name)
        ]
        return ", ".join(words) or "every series"

    def matches(self, header: Mapping[str, str], origin: str) -> bool:
        """Whether a series meets all conditions.

        Args:
            header: text of the elements of `HEADER_KEYWORDS`, by keyword.
            origin: "dimse:AETITLE" or "web:NAME".
        """
        conditions: list[tuple[Iterable[str], str]] = [
            (getattr(self, condition), header.get(keyword, ""))
            for condition, keyword in HEADER_KEYWORDS.items()
        ]
        sender = origin.partition(":")[2]
        peers = [(self.peer, origin if any(":" in p for p in self.peer) else sender)]
        return all(
            not patterns or any(_alike(pattern, value) for pattern in patterns)
            for patterns, value in [*conditions, *peers]
        )


def first_match(rules: Iterable[Rule], header: Mapping[str, str], origin: str) -> Rule | None:
    """Return the first rule whose conditions a series meets; None where there is none."""
    return next((rule for rule in rules if rule.matches(header, origin)), None)


def _alike(pattern: str, value: str) -> bool:
    return fnmatchcase(value.strip().casefold(), pattern.casefold())
