"""Validation of options that are given as arguments, JSON or TOML.

Options are frozen dataclasses. With `validated`, pydantic checks every value against its type when
an instance is built, from Python arguments or, by `from_mapping`, from plain values:

    @validated("recipe", table="data")
    @dataclass(frozen=True, kw_only=True)
    class DataRecipe:
        crop: Count = 128
        balance: Literal["slices", "tasks"] = "slices"

Checks of several values together stay in `__post_init__`. A mistake raises ConfigError: one line
that names the option, the given value and the allowed values.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from types import UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from annotated_types import Ge, Gt, Lt

from restore_rwkv.errors import ConfigError

T = TypeVar("T")
_ADAPTERS: dict[type[Any], tuple[dict[str, Any], Any]] = {}

Count = Annotated[int, Gt(0)]
"""A whole number above 0."""

Whole = Annotated[int, Ge(0)]
"""A whole number from 0."""


class Expected(NamedTuple):
    """Words for the error message of a field, placed in its `Annotated` type.

    Attributes:
        values: allowed values, such as "two numbers"; derived from the type by default.
        name: name of the field in messages; its own name by default.
    """

    values: str = ""
    name: str = ""


Seed = Annotated[int, Ge(0), Lt(2**63), Expected("a whole number from 0, below 2^63")]
"""A seed of random numbers, as PyTorch takes them."""


class _Place(NamedTuple):
    where: str
    table: str | None

    @property
    def start(self) -> str:
        return f"{self.where}: " if self.where else ""

    @property
    def within(self) -> str:
        return "" if self.table is None else f" in {self.table or 'the top level'}"

    def path(self, name: str) -> str:
        return f"{self.table}.{name}" if self.table else name


def validated(where: str = "", *, table: str | None = None) -> Callable[[type[T]], type[T]]:
    """Decorate a frozen dataclass so that its values are checked whenever one is built.

    Types are strict: no text for numbers, no numbers for true and false. A list may stand for a
    tuple, since JSON and TOML have no tuples, and a whole number for a float (it stays whole).

    Args:
        where: start of the messages, such as "recipe"; empty for plain arguments.
        table: the table of a file that holds these values: "" for its top level.

    Returns:
        The decorator. The class it returns raises ConfigError for an unknown or missing name and
        for a value that does not fit the type of its field.
    """
    place = _Place(where, table)

    def decorate(cls: type[T]) -> type[T]:
        build: Callable[..., None] = cls.__init__
        fields = [field for field in dataclasses.fields(cls) if field.init]  # type: ignore[arg-type]
        positional = [field.name for field in fields if not field.kw_only]

        @functools.wraps(build)
        def init(self: T, /, *arguments: Any, **named: Any) -> None:
            given = dict(zip(positional, arguments, strict=False))
            if len(arguments) > len(positional) or given.keys() & named.keys():
                build(self, *arguments, **named)  # raises the usual TypeError of a class
            build(self, **_checked(cls, place, given | named))

        type.__setattr__(cls, "__init__", init)
        type.__setattr__(cls, "_place", place)
        return cls

    return decorate


def from_mapping(cls: type[T], values: Any) -> T:
    """Build a dataclass decorated by `validated` from plain values, such as those of JSON or TOML.

    Raises:
        ConfigError: it is not a mapping, a key is unknown or missing, or a value does not fit.
    """
    place: _Place = cls._place  # type: ignore[attr-defined]
    if not isinstance(values, Mapping):
        subject = f"{place.start}{place.table}" if place.table else place.where
        raise ConfigError(f"{subject or 'it'} is {values!r}; give a table")
    return cls(**{str(key): value for key, value in values.items()})


def nearest(name: object, known: Iterable[str], cutoff: float = 0.0) -> str | None:
    """Return the known name most similar to a mistaken one; None below a similarity of `cutoff`."""
    import difflib

    return next(iter(difflib.get_close_matches(str(name), list(known), n=1, cutoff=cutoff)), None)


def parse_memory(text: str, name: str = "memory") -> int:
    """Bytes of a size such as "2GiB", "800 MB" or "500000000".

    Args:
        text: as it was given.
        name: of the argument, for messages.

    Raises:
        ConfigError: the text is not a size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", text, re.IGNORECASE)
    if match is None or len(match[1]) > 18:
        raise ConfigError(f"{name} {text!r} is not a size; write it as 2GiB or 800MB")
    number, prefix, binary = match.groups()
    power = " kmgt".index(prefix.lower() or " ")
    return int(float(number) * (1024 if binary else 1000) ** power)


def _checked(cls: type[Any], place: _Place, given: dict[str, Any]) -> dict[str, Any]:
    """Return the values, converted to the types of their fields."""
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    for name in given:
        if name not in fields:
            raise ConfigError(
                f"{place.start}unknown key {name!r}{place.within}; "
                f"did you mean {nearest(name, fields)!r}?"
            )
    for name, field in fields.items():
        required = field.default is field.default_factory is dataclasses.MISSING
        if required and name not in given:
            raise ConfigError(f"{place.start}{name!r} is missing{place.within}; add it")
    if cls not in _ADAPTERS:  # built at first use, since this takes a while
        types = _types(cls)
        _ADAPTERS[cls] = (types, _adapter(cls.__name__, types))
    types, adapter = _ADAPTERS[cls]
    given = {name: _plain(value) for name, value in given.items()}
    lists = {
        name: _tuples(value)
        for name, value in given.items()
        if isinstance(value, list) and get_origin(_split(types[name])[0]) is tuple
    }
    from pydantic import ValidationError

    try:
        values = adapter.validate_python(given | lists)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        raise ConfigError(_refusal(place, name, types[name], given[name], first["type"])) from error
    return {
        name: given[name] if type(given[name]) is int and isinstance(value, float) else value
        for name, value in values.items()
    }


def _tuples(value: Any) -> Any:
    """Return a value with its lists, at any depth, as tuples."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    """Return a whole number of NumPy as Python's; anything else as it is."""
    if isinstance(value, (bool, int, float, str)) or not hasattr(value, "__index__"):
        return value
    return operator.index(value) if getattr(value, "ndim", 0) == 0 else value


def _types(cls: type[Any]) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(cls) if field.init}
    hints = get_type_hints(cls, include_extras=True)
    return {name: hint for name, hint in hints.items() if name in names}


def _adapter(name: str, types: dict[str, Any]) -> Any:
    """Return pydantic's validator for a mapping with these entries, all of them optional."""
    from pydantic import ConfigDict, TypeAdapter
    from typing_extensions import TypedDict

    make: Any = TypedDict  # mypy knows TypedDict with literal names only
    table = make(name, types, total=False)
    table.__pydantic_config__ = ConfigDict(strict=True, arbitrary_types_allowed=True)
    return TypeAdapter(table)


def _split(hint: Any) -> tuple[Any, list[Any]]:
    """Split a type into the bare type, without None and `Annotated`, and its annotations."""
    notes: list[Any] = []
    while get_origin(hint) in (Annotated, Union, UnionType):
        inner = get_args(hint)
        if get_origin(hint) is Annotated:
            notes += inner[1:]
            hint = inner[0]
        else:
            kinds = [kind for kind in inner if kind is not type(None)]
            if len(kinds) != 1:
                break
            hint = kinds[0]
    return hint, notes


def _refusal(place: _Place, name: str, hint: Any, value: object, fault: str) -> str:
    """Return the message for an invalid value; `fault` is pydantic's name of the error."""
    plain, notes = _split(hint)
    expected = next((note for note in notes if isinstance(note, Expected)), Expected())
    remedy = f"give {expected.values}" if expected.values else _remedy(plain, notes)
    if fault == "literal_error" and (expected.name or not place.where):
        near = nearest(value, map(str, get_args(plain)), cutoff=0.5)
        hint = f"did you mean {near!r}? " if near else ""
        return f"{expected.name or name} {value!r} is unknown; {hint}{remedy}"
    path = place.path(name)
    if fault == "float_type" and place.table:
        given = f"a value of {place.table} has a wrong type ({path} is {value!r})"
    elif fault.endswith("_type") and not place.where:
        wanted = fault.removesuffix("_type")
        article = "an" if wanted[0] in "aeiou" else "a"
        given = f"{path} is not {article} {wanted}: {value!r}"
    else:
        given = f"{path} is {value!r}"
    return f"{place.start}{given}; {remedy}"


def _remedy(plain: Any, notes: list[Any]) -> str:
    """Return the remedy: the values that a type allows."""
    if get_origin(plain) is Literal:
        return f"choose from {', '.join(map(repr, get_args(plain)))}"
    if plain is bool:
        return "choose from False, True"
    number = {int: "a whole number", float: "a number"}.get(plain)
    if number:
        bounds = [
            f" above {note.gt}" if isinstance(note, Gt) else f" from {note.ge}"
            for note in notes
            if isinstance(note, (Gt, Ge))
        ]
        return f"give {number}{''.join(bounds)}"
    kinds = {str: "text", tuple: "a list", list: "a list", dict: "a table"}
    kind = get_origin(plain) or plain
    return f"give {kinds.get(kind, getattr(kind, '__name__', kind))}"
