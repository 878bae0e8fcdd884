"""Error messages of the library, in the words of the command line."""

from __future__ import annotations

import re
from collections.abc import Mapping

from restore_rwkv.errors import ConfigError, RestoreError, message_of

# An argument as messages of the library write it: skip=True, task='mri-sr' or patient=PATTERN.
_ARGUMENT = re.compile(r"(?<![\w./=-])([a-z][a-z_]*)=(True\b|'[^']*'|[^\s=,;()']*[^\s=,;()'.?:])")
# The same without a value: "leave series out".
_LEFT_OUT = re.compile(r"\bleave ([a-z][a-z_]*) (?=out\b|at\b)")
# Settings that a message is about: "dose is 2", "scale 9 is", "memory: ", "dose and factor are".
_SUBJECT = re.compile(
    r"([a-z][a-z_]*)(?: [\d.'][^ ]*)?(?: and ([a-z][a-z_]*))?(?= is | are |:| [\d'])"
)
_CHOICE = re.compile(r"(?:Value error, )?('.*') is not one of (.*?)\.?")


def user_message(error: Exception, flags: Mapping[str, str]) -> str | None:
    """One-line message for an error of the user or of the system; None for a bug.

    Args:
        error: what ended the command.
        flags: flag of each option, by the name of its argument.
    """
    if isinstance(error, ConfigError):
        return with_flags(_with_subject(str(error), flags), flags)
    if isinstance(error, RestoreError):
        return with_flags(str(error), flags)
    if hasattr(error, "format_message"):  # of click, which typer brings under changing names
        return _usage_message(error, error.format_message())
    return message_of(error)


def with_flags(message: str, flags: Mapping[str, str]) -> str:
    """A message with `name=value` as `--name value`; names that are not options stay.

    Example:
        >>> with_flags("give task='mri-sr' or skip=True", {"task": "--task", "skip": "--skip"})
        'give --task mri-sr or --skip'
    """

    def replaced(match: re.Match[str]) -> str:
        name, value = match.groups()
        if name not in flags:
            return match[0]
        if value == "True":
            return flags[name]
        return f"{flags[name]} {value if ' ' in value else value.strip(chr(39))}"

    def named(match: re.Match[str]) -> str:
        return f"leave {flags.get(match[1], match[1])} "

    where, colon, rest = message.partition(": ")  # a file may be named like an argument
    if not colon:
        where, rest = "", message
    return where + colon + _LEFT_OUT.sub(named, _ARGUMENT.sub(replaced, rest))


def _with_subject(message: str, flags: Mapping[str, str]) -> str:
    """A message about settings, with the flags of those that it begins with.

    Only for errors of settings: messages about a file begin with its name, which may be "data".
    """
    match = _SUBJECT.match(message)
    if match is None:
        return message
    for group in (2, 1):  # from the end, so that positions stay
        name = match[group]
        if name in flags:
            start, end = match.span(group)
            message = message[:start] + flags[name] + message[end:]
    return message


def _usage_message(error: Exception, text: str) -> str:
    """Message for a mistake on the command line itself, which typer found."""
    from restore_rwkv.options import nearest
    from restore_rwkv.tasks import get_task

    parameter = getattr(getattr(error, "param", None), "name", None)
    choice = _CHOICE.fullmatch(str(getattr(error, "message", "")))
    if parameter == "task" and choice and choice[1] == "'all-in-one'":
        try:
            get_task("all-in-one")  # which says that these are weights
        except RestoreError as refusal:
            return str(refusal)
    if parameter and choice:
        given, choices = choice[1].strip("'"), re.findall(r"'([^']*)'", choice[2])
        near = nearest(given, choices, cutoff=0.4)
        hint = f"did you mean {near!r}? " if near else ""
        text = f"{parameter} {given!r} is unknown; {hint}use {', '.join(choices)}."
    text = " ".join(text.split())
    return f"{text if text.endswith(('.', '?')) else f'{text}.'} See restore-rwkv --help."
