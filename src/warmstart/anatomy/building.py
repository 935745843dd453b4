"""Fill a family table in: names, sizes and tensors of one config."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from functools import cache
from typing import Any

from warmstart.anatomy.expressions import evaluate, variables
from warmstart.anatomy.notation import Entry, Layout, TensorSpec, parse_dims
from warmstart.anatomy.tables import FamilyTable
from warmstart.foundation.errors import UserError


def config_names(table: FamilyTable, config: Mapping[str, Any], tied: bool) -> dict[str, Any]:
    """Config keys, derived ones (`num_labels`, `architecture`, `tied`) and the table's flags, by name.

    Conditions that differ between blocks are not among them.
    """
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
        if not evaluate(axis.when, names):
            continue
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
    table: FamilyTable,
    names: Mapping[str, Any],
    sizes: Mapping[str, int],
    layers: Mapping[str, int],
    layout: Layout,
) -> dict[str, TensorSpec]:
    """Every tensor of the model in one layout, in order of the table, layer by layer within a template."""
    built: dict[str, TensorSpec] = {}
    there = cache(lambda layer: _block_names(table, names, layer))
    groups = cache(lambda *place: _groups(table, names, *place))
    for part, templates in table.tensors.items():
        for template, alternatives in templates.items():
            stack = _stack_of(template, layers)
            fitting = [entry for entry in alternatives if entry.layout in (None, layout)]
            for layer in range(layers[stack]) if stack and "{l}" in template else (None,):
                entry = next((item for item in fitting if evaluate(item.when, there(layer))), None)
                if entry is None:
                    continue
                share = Fraction(evaluate(entry.share, {**names, **sizes})).limit_denominator(10**6)
                for expert in range(sizes["X"]) if "{x}" in template else (None,):
                    place = groups(stack, layer, expert)
                    spec = TensorSpec(
                        name=template.replace("{l}", str(layer)).replace("{x}", str(expert)),
                        dims=parse_dims(entry.dims, sizes, place),
                        part=part,
                        unit=entry.unit,
                        stack=stack,
                        layer=layer,
                        reads=entry.reads,
                        aliases=entry.aliases,
                        tied_to=entry.tied_to if evaluate(entry.tied_when, names) else None,
                        template=template,
                        entry=None if expert is None else Entry("X", expert, sizes["X"], place["X"]),
                        share=share,
                    )
                    built[spec.name] = spec
    return built


def _block_names(table: FamilyTable, names: Mapping[str, Any], layer: int | None) -> dict[str, Any]:
    there = {**names, "layer": layer}
    if layer is not None:
        there |= {flag: evaluate(expression, there) for flag, expression in table.layer_flags.items()}
    return there


def _groups(
    table: FamilyTable, names: Mapping[str, Any], stack: str | None, layer: int | None, expert: int | None
) -> dict[str, str]:
    """Name of the group of every axis letter at one place."""
    groups = {}
    for letter, axis in table.axes.items():
        joined = axis.joins if axis.joins and evaluate(axis.joins_when, names) else letter
        groups[letter] = {
            "global": joined,
            "stack": f"{joined}@{stack}",
            "layer": f"{joined}@{stack}.{layer}",
            "expert": f"{joined}@{stack}.{layer}.{'*' if expert is None else expert}",
        }[axis.scope]
    return groups


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
