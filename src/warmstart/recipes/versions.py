"""Versions of the methods that a step's settings name: a changed method reruns the steps that use it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from warmstart.foundation.errors import UserError
from warmstart.foundation.registry import Registry
from warmstart.foundation.settings import Settings

_KEYS = {
    "initialiser": "initialiser",
    "initialisers": "initialiser",
    "objective": "objective",
    "optimizer": "optimizer",
    "width": "width",
    "depth": "depth",
    "growth": "growth",
    "importance": "importance",
    "merge_method": "merge",
    "method": "wrap",
    "search": "search",
}
"""Settings that name methods -> kind of method."""


def later_versions(settings: Settings) -> dict[str, int]:
    """`"<kind> <name>"` -> version of each method in `settings` that is not at version 1.

    Methods are initialisers, objectives, optimizers and the ways to reshape, to merge and to search. A name
    counts wherever it stands: in the settings, in tables inside (the arms of a comparison), and as the
    default of a step that is described there. The objective `auto` counts as the one that the `source` beside
    it is trained with, or, where none is there to look at, as all that it may become.
    """
    found = {}
    for kind, name in set(_named(settings)):
        registry = _registry(kind)
        if name in registry and (version := registry.get(name).version) != 1:
            found[f"{kind} {name}"] = version
    return found


def _registry(kind: str) -> Registry[Any]:
    from warmstart.objectives import objectives
    from warmstart.shape.depth import depths
    from warmstart.shape.importance import importances
    from warmstart.shape.learned import growths
    from warmstart.shape.merge import merges
    from warmstart.shape.search.ways import searches
    from warmstart.shape.width import widths
    from warmstart.shape.wrap import wraps
    from warmstart.training.optimizer import optimizers
    from warmstart.vocabulary.rows._base import initialisers

    shapes: list[Registry[Any]] = [widths, depths, growths, importances, merges, searches, wraps]
    known: list[Registry[Any]] = [initialisers, objectives, optimizers, *shapes]
    return next(registry for registry in known if registry.kind == kind)


def _named(value: Any) -> Iterator[tuple[str, str]]:
    """Kind and name of each method in a table of settings, also in the tables inside it."""
    if isinstance(value, Settings):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, list | tuple):
        for item in value:
            yield from _named(item)
    if not isinstance(value, Mapping):
        return
    for key, item in _with_defaults(value).items():
        if key not in _KEYS:
            yield from _named(item)
            continue
        for given in item if isinstance(item, list | tuple) else [item]:
            unnamed = "adamw" if key == "optimizer" else "auto"  # as training reads it
            name = given.get("name", unnamed) if isinstance(given, Mapping) else given
            if _KEYS[key] == "objective" and name == "auto":
                yield from (("objective", usual) for usual in _usual(value.get("source")))
            else:
                yield _KEYS[key], str(name)


def _with_defaults(table: Mapping[str, Any]) -> dict[str, Any]:
    """The table, and where it describes a step (by `type` or `step`) the methods which that takes unasked."""
    from warmstart.recipes.operations import operations

    unasked: dict[str, Any] = {}
    for key in ("type", "step"):
        if isinstance(kind := table.get(key), str) and kind in operations:
            fields = operations.get(kind).settings.model_fields
            unasked |= {
                name: fields[name].get_default(call_default_factory=True) for name in _KEYS if name in fields
            }
    return {**unasked, **table}


def _usual(source: Any) -> list[str]:
    """What `auto` stands for; nothing, without a look at the source, while all of that is at version 1."""
    from warmstart.checkpoint.architecture import task_of
    from warmstart.checkpoint.headers import read_json
    from warmstart.objectives._base import USUAL, objectives

    if all(objectives.get(name).version == 1 for name in USUAL.values()):
        return []
    try:
        return [USUAL[task_of(read_json(Path(str(source)) / "config.json"), remote=True)]]
    except (UserError, OSError):
        return list(USUAL.values())
