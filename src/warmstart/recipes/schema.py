"""The recipe: a YAML file of named, typed steps, checked as a whole before anything runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from warmstart.foundation.errors import UserError, nearest
from warmstart.foundation.settings import Settings
from warmstart.recipes.operations import operations

REFERENCE = re.compile(r"\$\{([^{}]+)\}")
Scale = Literal["smoke", "small", "full"]


class Recipe(Settings):
    """A chain of operations."""

    name: str
    """Name of the run folder and of the result."""
    title: str = ""
    """What the recipe shows, in one line."""
    systems: list[int] = []
    """Numbers of the catalogue's systems whose claims this recipe runs."""
    paper: str = ""
    """arXiv id or address of the source, where there is one."""
    compares: str = ""
    """What is compared with what, and how this differs from the published set-up."""
    steps: dict[str, dict[str, Any]]
    """Step name -> `{type: …, settings…}`. `${other}` stands for the artifact of another step."""
    scales: dict[Scale, dict[str, Any]] = {}
    """Scale -> overrides `{"step.key": value}` that turn the recipe into that scale."""
    result: str = ""
    """Step whose artifact is the outcome; the last one by default."""

    @property
    def outcome(self) -> str:
        """Name of the step that holds the result."""
        return self.result or list(self.steps)[-1]

    def scaled(self, scale: str | None, overrides: Iterable[str] = ()) -> Recipe:
        """This recipe at a scale, with `key=value` overrides applied last."""
        if scale is not None and scale not in self.scales:
            raise UserError(
                f"the recipe has no scale {scale!r}", where=self.name, fix=nearest(scale, self.scales)
            )
        steps = {name: dict(step) for name, step in self.steps.items()}
        changes = dict(self.scales.get(scale, {})) if scale else {}
        changes |= dict(_parse_override(text) for text in overrides)
        for key, value in changes.items():
            _assign(steps, key, value, self.name)
        return Recipe.parse(self.model_dump() | {"steps": steps}, where=self.name)

    def order(self, only: str | None = None) -> list[str]:
        """Step names so that each follows what it refers to; circular or unknown references are refused.

        Args:
            only: Keep just this step and what it needs.
        """
        done: list[str] = []
        trail: list[str] = []

        def visit(name: str, by: str) -> None:
            if name in done:
                return
            if name not in self.steps:
                raise UserError(
                    f"step {by!r} refers to ${{{name}}}, which is no step",
                    where=self.name,
                    fix=nearest(name, self.steps),
                )
            if name in trail:
                loop = " → ".join([*trail[trail.index(name) :], name])
                raise UserError(f"the steps are circular: {loop}", where=self.name, fix="break the circle")
            trail.append(name)
            for needed in references(self.steps[name]):
                visit(needed, name)
            trail.pop()
            done.append(name)

        for name in [only] if only else self.steps:
            visit(name, "the recipe")
        return done

    def validate_steps(self) -> None:
        """Check every step's type and settings without running anything."""
        self.order()
        if self.result and self.result not in self.steps:
            raise UserError(
                f"result: no step {self.result!r}", where=self.name, fix=nearest(self.result, self.steps)
            )
        for name, step in self.steps.items():
            parse_step(step, where=f"{self.name}: {name}")


def parse_step(step: Mapping[str, Any], where: object) -> tuple[str, Settings]:
    """Type name and validated settings of one step."""
    if not isinstance(step, Mapping) or not isinstance(step.get("type"), str):
        raise UserError(
            "a step needs a type", where=where, fix="choose one of " + ", ".join(operations.names())
        )
    entry = operations.get(step["type"], where=where)
    return entry.name, entry.settings.parse({k: v for k, v in step.items() if k != "type"}, where=where)


def references(value: object) -> Iterator[str]:
    """Names inside `${…}` anywhere in `value`."""
    if isinstance(value, str):
        yield from REFERENCE.findall(value)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from references(item)


def substitute(value: Any, known: Mapping[str, str]) -> Any:
    """`value` with each `${name}` replaced by `known[name]`."""
    if isinstance(value, str):
        return REFERENCE.sub(lambda match: known[match.group(1)], value)
    if isinstance(value, Mapping):
        return {key: substitute(item, known) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [substitute(item, known) for item in value]
    return value


def load_recipe(path: Path) -> Recipe:
    """Read and validate a YAML recipe."""
    return Recipe.parse(read_yaml(path), where=path)


def read_yaml(path: Path) -> Any:
    """Parse a YAML file as data; mistakes name the line."""
    if not path.is_file():
        raise UserError("no such file", where=path, fix="give the path of a YAML recipe")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f"{path}, line {mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or "it is not text in UTF-8"
        raise UserError(f"the YAML cannot be read: {problem}", where=line, fix="mend that line") from None


def _parse_override(text: str) -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise UserError(f"{text!r} is no override", where="--set", fix="write it as step.key=value")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        raise UserError(
            f"the value of {key!r} is not YAML: {value!r}", where="--set", fix="quote it"
        ) from None


def _assign(steps: dict[str, dict[str, Any]], key: str, value: Any, where: str) -> None:
    step, _, rest = key.partition(".")
    if step not in steps or not rest:
        raise UserError(
            f"the override {key!r} names no step",
            where=where,
            fix=f"write step.key=value; {nearest(step, steps)}",
        )
    target: dict[str, Any] = steps[step]
    *parents, last = rest.split(".")
    for part in parents:
        inner = target.get(part)
        target[part] = dict(inner) if isinstance(inner, Mapping) else {}
        target = target[part]
    target[last] = value


def recipe_schema() -> dict[str, Any]:
    """JSON schema of recipes, with one variant per step type, for completion and checks in editors."""
    definitions: dict[str, Any] = {}
    variants = []
    for entry in operations:
        schema = entry.settings.model_json_schema(ref_template="#/$defs/{model}")
        definitions |= schema.pop("$defs", {})
        schema["properties"] = {"type": {"const": entry.name}, **schema.get("properties", {})}
        schema["required"] = ["type", *schema.get("required", [])]
        schema["description"] = entry.summary
        definitions[f"step-{entry.name}"] = schema
        variants.append({"$ref": f"#/$defs/step-{entry.name}"})
    root = Recipe.model_json_schema()
    root["properties"]["steps"]["additionalProperties"] = {"oneOf": variants}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **root, "$defs": definitions}
