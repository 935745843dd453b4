"""One settings class per operation: the single list of options behind YAML, CLI, Python and the docs.

Subclass [`Settings`][warmstart.foundation.settings.Settings] and document each field with a docstring
under it; that text is the `--help` line, the schema description and the reference entry.
"""

from __future__ import annotations

import hashlib
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from warmstart.foundation.errors import UserError, nearest


@dataclass(frozen=True)
class AddedLater:
    """Mark of a field that is younger than kept results: `name: Annotated[T, AddedLater()] = default`.

    While such a field has its default it takes no part in the key of a step, and a run that was recorded
    without it counts as recorded with its default. So what was made before the field came is still found.
    """


class Settings(BaseModel):
    """Immutable options. Unknown keys are refused, with the nearest right one."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )

    @classmethod
    def parse(cls, data: Mapping[str, Any] | Self | None = None, *, where: object = None) -> Self:
        """Validate `data`; any mistake is one [`UserError`][warmstart.foundation.errors.UserError]."""
        if isinstance(data, cls):
            return data
        if data is not None and not isinstance(data, Mapping):
            raise UserError(f"expected a table of settings, got {data!r}", where=where)
        try:
            return cls.model_validate(dict(data or {}))
        except ValidationError as error:
            raise _as_user_error(cls, error, where) from None

    @classmethod
    def added_later(cls) -> dict[str, Any]:
        """Name -> default of the fields that are marked as [`AddedLater`][warmstart.foundation.settings]."""
        return {
            name: field.get_default(call_default_factory=True)
            for name, field in cls.model_fields.items()
            if any(isinstance(mark, AddedLater) for mark in field.metadata)
        }

    def digest(self) -> str:
        """Hash of all values: equal settings have equal digests on every machine."""
        return digest(self.model_dump(mode="json"))


S = TypeVar("S", bound=Settings)


def digest(value: object) -> str:
    """Hex SHA-256 (first 16 digits) of a JSON-serialisable value; key order does not matter."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"cannot hash a {type(value).__name__}")


def _as_user_error(cls: type[BaseModel], error: ValidationError, where: object) -> UserError:
    found = error.errors(include_url=False)
    # a misspelt key explains a missing one
    first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])
    path = [part for part in first["loc"] if isinstance(part, str | int)]
    key = ".".join(str(part) for part in path) or "settings"
    if first["type"] == "extra_forbidden":
        owner = _owner(cls, path[:-1])
        known = list(owner.model_fields) if owner else list(cls.model_fields)
        return UserError(f"unknown key {key!r}", where=where, fix=nearest(str(path[-1]), known))
    if first["type"] == "missing":
        return UserError(f"the key {key!r} is required and missing", where=where, fix=f"add {key}: …")
    given = repr(first.get("input"))
    shown = given if len(given) <= 60 else given[:57] + "…"
    message = first["msg"].removeprefix("Value error, ")
    return UserError(f"{key}: {message[0].lower() + message[1:]}, got {shown}", where=where)


def _owner(cls: type[BaseModel], path: list[str | int]) -> type[BaseModel] | None:
    """The model class that `path` leads to, walking through nested models, lists, tables and unions."""
    current: Any = cls
    for part in path:
        models = [m for m in _models(current) if isinstance(part, str) and part in m.model_fields]
        if models:
            current = models[0].model_fields[str(part)].annotation
    found = _models(current)
    return found[0] if found else None


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, list, tuple, dict, typing.Annotated):
        return [m for arg in typing.get_args(annotation) for m in _models(arg)]
    return []
