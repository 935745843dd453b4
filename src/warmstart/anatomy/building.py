"""Fill a family table in: names, sizes and tensors of one config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from warmstart.anatomy.expressions import evaluate, variables
from warmstart.anatomy.notation import TensorSpec, parse_dims
from warmstart.anatomy.tables import EntryTable, FamilyTable
from warmstart.foundation.errors import UserError


def config_names(table: FamilyTable, config: Mapping[str, Any], tied: bool) -> dict[str, Any]:
    """Config keys, derived ones (`num_labels`, `architecture`, `tied`) and the table's flags, by name."""
    labels, architectures = config.get("id2label"), config.get("architectures")
    names = {
        **config,
        "tied": tied,
        "num_labels": len(labels) if labels else config.get("num_labels") or 2,
        "architecture": architectures[0] if architectures else "",
    }
    for flag, expression in table.flags.items():
        names[flag] = evaluate(expression, names)
    return names


def measure(table: FamilyTable, names: Mapping[str, Any], where: object) -> dict[str, int]:
    """Size of every axis letter, checked against the constraints of the model class."""
    sizes: dict[str, int] = {}
    for letter, axis in table.axes.items():
        sizes[letter] = _whole(axis.size, {**names, **sizes}, axis.meaning, where)
    for rule in table.constraints:
        if not evaluate(rule, {**names, **sizes}):
            values = ", ".join(f"{name}={sizes.get(name, names.get(name))}" for name in variables(rule))
            raise UserError(
                f"the sizes in the config contradict each other: {rule} does not hold ({values})",
                where=where,
                fix=f"{names['model_type']} needs "
                + ", ".join(
                    f"{name} = {table.axes[name].meaning}" for name in variables(rule) if name in sizes
                ),
            )
    return sizes


def layer_counts(table: FamilyTable, names: Mapping[str, Any], where: object) -> dict[str, int]:
    """Number of blocks per stack."""
    return {
        stack: _whole(expression, names, f"number of {stack} layers", where)
        for stack, expression in table.stacks.items()
    }


def build_tensors(
    table: FamilyTable, names: Mapping[str, Any], sizes: Mapping[str, int], layers: Mapping[str, int]
) -> dict[str, TensorSpec]:
    """Every tensor of the model, in order of the table, layer by layer within a template."""
    built: dict[str, TensorSpec] = {}
    for part, templates in table.tensors.items():
        for template, alternatives in templates.items():
            entry = next((item for item in alternatives if evaluate(item.when, names)), None)
            if entry is None:
                continue
            stack = _stack_of(template, layers)
            for layer in range(layers[stack]) if stack and "{l}" in template else (None,):
                spec = _spec(table, entry, template, part, names, sizes, stack, layer)
                built[spec.name] = spec
    return built


def _spec(
    table: FamilyTable,
    entry: EntryTable,
    template: str,
    part: str,
    names: Mapping[str, Any],
    sizes: Mapping[str, int],
    stack: str | None,
    layer: int | None,
) -> TensorSpec:
    groups = {}
    for letter, axis in table.axes.items():
        joined = axis.joins if axis.joins and evaluate(axis.joins_when, names) else letter
        groups[letter] = {
            "global": joined,
            "stack": f"{joined}@{stack}",
            "layer": f"{joined}@{stack}.{layer}",
        }[axis.scope]
    return TensorSpec(
        name=template.replace("{l}", str(layer)),
        dims=parse_dims(entry.dims, sizes, groups),
        part=part,
        unit=entry.unit,
        stack=stack,
        layer=layer,
        reads=entry.reads,
        aliases=entry.aliases,
        tied_to=entry.tied_to if evaluate(entry.tied_when, names) else None,
        template=template,
    )


def _stack_of(template: str, layers: Mapping[str, int]) -> str | None:
    if len(layers) == 1:
        return next(iter(layers)) if "{l}" in template else None
    return next((stack for stack in layers if template.startswith(f"{stack}.")), None)


def _whole(expression: Any, names: Mapping[str, Any], meaning: str, where: object) -> int:
    keys = [name for name in variables(expression) if name in names or len(name) > 1]
    shown = ", ".join(f"{key}={names.get(key)!r}" for key in keys)
    try:
        value = evaluate(expression, names)
    except (TypeError, ZeroDivisionError):
        value = None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(
            f"the config gives no positive whole number for the {meaning} ({shown})",
            where=where,
            fix="repair config.json",
        )
    return value
