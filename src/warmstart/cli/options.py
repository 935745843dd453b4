"""Command-line options generated from a settings class, so that there is no second list of options."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from warmstart.cli.values import apply_overrides, put, read_yaml, scalar
from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings


@dataclass(frozen=True)
class Leaf:
    """One field of a settings class as one option.

    Attributes:
        path: Keys from the outermost settings class to the field.
        field: The pydantic field, with its documentation and default.
        annotation: Its type without `None`.
        short: For nested settings that a plain word can stand for: the key that the word fills.
    """

    path: tuple[str, ...]
    field: FieldInfo
    annotation: Any
    short: str | None = None

    @property
    def dest(self) -> str:
        """Name of the parameter inside the program."""
        return "s__" + "__".join(self.path)

    @property
    def flag(self) -> str:
        """`--corpus.max-bytes` for the key `corpus.max_bytes`."""
        return "--" + ".".join(self.path).replace("_", "-")


def leaves(settings: type[Settings], prefix: tuple[str, ...] = ()) -> list[Leaf]:
    """Every field of `settings`, nested settings opened, in the order in which they are declared.

    A field that takes a nested table or a plain word (`corpus: CorpusSettings | str`) gives both: the
    option `--corpus` and the options `--corpus.…`.
    """
    found: list[Leaf] = []
    for name, field in settings.model_fields.items():
        path, members = (*prefix, name), _members(field.annotation)
        nested = [m for m in members if isinstance(m, type) and issubclass(m, Settings)]
        simple = [m for m in members if m not in nested]
        if simple or (nested and shorthand(nested[0])):
            annotation = simple[0] if len(simple) == 1 else (typing.Union[tuple(simple)] if simple else str)  # noqa: UP007
            found.append(Leaf(path, field, annotation, shorthand(nested[0]) if nested else None))
        if len(nested) == 1 and len(path) < 4:
            found.extend(leaves(nested[0], path))
    return found


@cache
def shorthand(settings: type[Settings]) -> str | None:
    """Key that a plain word fills when it stands for the whole table (`corpus: text.txt`), else None."""
    try:
        keys = settings.model_validate("word").model_fields_set
    except ValidationError:
        return None
    return next(iter(keys)) if len(keys) == 1 else None


def settings_options(
    settings: type[Settings], *, arguments: Sequence[str] = (), name: str = "settings", lazy: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator that gives a command one option per field of `settings` and passes the validated object.

    What comes later wins: `--config FILE.yaml` (`--config-file` where a setting is called `config`), then
    options, then `--set key=value`.

    Args:
        settings: The operation's settings class.
        arguments: Top-level keys that are words without an option name, in order; optional ones when the
            field has a default.
        name: Parameter of the command that receives the settings.
        lazy: Pass a function that validates and returns the settings, for commands that may not need them.
    """
    every = leaves(settings)
    words = {leaf.path[-1]: leaf.short for leaf in every if leaf.short}

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*args: Any, config_file: Path | None, overrides: tuple[str, ...], **values: Any) -> Any:
            given: dict[str, Any] = read_yaml(config_file) if config_file else {}
            for leaf in every:
                value = values.pop(leaf.dest)
                if value is None or value == ():
                    continue
                put(given, leaf.path, _value(leaf, value), words)
            apply_overrides(given, overrides, words)
            make = functools.partial(settings.parse, given, where=config_file)
            values[name] = make if lazy else make()
            return function(*args, **values)

        run: Callable[..., Any] = click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="KEY=VALUE",
            help="Any setting, also inside a method (`initialiser.temperature=0.5`); read as YAML.",
        )(wrapped)
        names = ["--config-file"] if "config" in settings.model_fields else ["--config", "--config-file"]
        run = click.option(
            *names,
            "config_file",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            metavar="FILE.yaml",
            help="Settings from a file; options on the command line win.",
        )(run)
        for leaf in reversed(every):
            if len(leaf.path) == 1 and leaf.path[0] in arguments:
                continue
            run = _option(leaf)(run)
        for argument in reversed(arguments):
            leaf = next(leaf for leaf in every if leaf.path == (argument,))
            run = click.argument(leaf.dest, required=False, metavar=argument.upper())(run)
        run.__settings__ = settings  # type: ignore[attr-defined]
        return run

    return decorate


class SettingsCommand(click.Command):
    """A command whose help groups the generated options by section."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section per group of settings, the general options last."""
        sections: dict[str, list[tuple[str, str]]] = {"Settings": []}
        general: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            row = parameter.get_help_record(ctx)
            if row is None:
                continue
            if parameter.name and parameter.name.startswith("s__"):
                keys = parameter.name.split("__")[1:]
                sections.setdefault("Settings" if len(keys) == 1 else f"Settings of {keys[0]}", []).append(
                    row
                )
            else:
                general.append(row)
        for title, rows in (*sections.items(), ("General", general)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def _members(annotation: Any) -> list[Any]:
    if typing.get_origin(annotation) is typing.Annotated:
        return _members(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [m for a in typing.get_args(annotation) if a is not type(None) for m in _members(a)]
    return [annotation]


def _option(leaf: Leaf) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    text = " ".join((leaf.field.description or "").split())
    if leaf.field.is_required():
        text += "  [required]"
    elif leaf.field.default is not None and leaf.field.default_factory is None and _short(leaf.field.default):
        text += f"  [default: {_short(leaf.field.default)}]"
    if leaf.annotation is bool:
        return click.option(f"{leaf.flag}/--no-{leaf.flag[2:]}", leaf.dest, default=None, help=text)
    many = typing.get_origin(leaf.annotation) in (list, tuple, set, frozenset)
    return click.option(leaf.flag, leaf.dest, multiple=many, metavar=_metavar(leaf.annotation), help=text)


def _short(default: Any) -> str:
    if isinstance(default, Settings) or default in ("", [], (), {}):
        return ""
    if isinstance(default, list | tuple):
        return ",".join(map(str, default))
    return str(default)


def _metavar(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return "|".join(map(str, typing.get_args(annotation)))
    if origin in (list, tuple, set, frozenset):
        return f"{_metavar(typing.get_args(annotation)[0])},…" if typing.get_args(annotation) else "A,B,…"
    if origin in (dict, Mapping):
        return "{KEY: VALUE}"
    simple = {int: "INT", float: "NUMBER", Path: "PATH", str: "TEXT"}
    return simple.get(annotation, "VALUE")


def _value(leaf: Leaf, given: Any) -> Any:
    """The given text as YAML would give it; pydantic validates it, so that there is one kind of message."""
    import yaml

    if isinstance(given, bool):
        return given
    origin = typing.get_origin(leaf.annotation)
    if isinstance(given, tuple):
        texts = [
            t for text in given for t in (yaml.safe_load(text) if text.startswith("[") else text.split(","))
        ]
        return [scalar(_trim(t)) if typing.get_args(leaf.annotation) != (str,) else _trim(t) for t in texts]
    if given in ("none", "null") and _optional(leaf.field):
        return None
    if leaf.annotation in (str, Path) or origin is typing.Literal:
        return given
    if origin in (dict, Mapping) or given[:1] in "[{":
        try:
            return yaml.safe_load(given)
        except yaml.YAMLError:
            raise UserError(f"the value of {leaf.flag} is not YAML: {given!r}") from None
    return scalar(given)


def _trim(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


def _optional(field: FieldInfo) -> bool:
    return type(None) in typing.get_args(field.annotation)
