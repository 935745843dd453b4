"""Match a checkpoint's tensors against the table: each must be known, whole and of the right size."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from warmstart.anatomy.notation import Dim, TensorSpec
from warmstart.foundation.errors import UserError, nearest

if TYPE_CHECKING:
    from warmstart.anatomy.model import Anatomy


def match(anatomy: Anatomy, shapes: Mapping[str, Any], *, where: object = None) -> dict[str, TensorSpec]:
    """Give every stored tensor its meaning, or say what is wrong.

    Accepted are names with or without the base model's prefix, aliases of shared tensors, names of older
    releases, and buffers that hold no parameter (these are left out of the answer). A tied tensor may be
    absent; a unit such as the pooler may be absent as a whole. Of a family that has two layouts, either is
    accepted, whole.

    Args:
        anatomy: What the config promises.
        shapes: Stored name to shape (or to anything with a `shape`).
        where: File or folder, for the message.

    Raises:
        UserError: Unknown tensor, wrong shape, one tensor twice, a mixture of layouts, or required tensors
            missing.
    """
    anatomy = fitting(anatomy, shapes, where=where)
    names = anatomy.stored_names
    found: dict[str, TensorSpec] = {}
    stored_as: dict[str, str] = {}
    prefixed = False
    for stored, value in shapes.items():
        name = _renamed(anatomy, stored)
        if name not in names:
            if any(re.search(pattern, stored) for pattern in anatomy.table.ignore):
                continue
            raise UserError(
                f"the tensor {stored!r} has no place in a {anatomy.model_type} model of this config",
                where=where,
                fix=_hint(anatomy, name, names),
            )
        spec = names[name]
        _check_shape(anatomy, spec, stored, tuple(getattr(value, "shape", value)), where)
        if name not in spec.aliases:
            if spec.name in stored_as:
                raise UserError(
                    f"the tensors {stored_as[spec.name]!r} and {stored!r} are the same parameter",
                    where=where,
                    fix="keep one of them",
                )
            stored_as[spec.name] = stored
            prefixed |= bool(anatomy.table.prefix) and name.startswith(anatomy.table.prefix)
        found[stored] = spec
    _check_complete(anatomy, {spec.name for spec in found.values()}, prefixed, where)
    return found


def fitting(anatomy: Anatomy, names: Iterable[str], *, where: object = None) -> Anatomy:
    """The anatomy in the layout of these stored names.

    Raises:
        UserError: Some names are of files and others of a model in memory.
    """
    files, memory = (anatomy.in_layout(layout) for layout in ("files", "memory"))
    if files is memory:
        return anatomy
    both = {"files": files.stored_names, "memory": memory.stored_names}
    only: dict[str, str] = {}
    for stored in names:
        name = _renamed(anatomy, stored)
        places = [layout for layout, known in both.items() if name in known]
        if len(places) == 1:
            only.setdefault(places[0], stored)
    if len(only) == 2:
        raise UserError(
            f"{only['files']!r} is a name of stored files and {only['memory']!r} one of a model in memory",
            where=where,
            fix="save the model with save_pretrained, which writes all tensors in the layout of files",
        )
    return memory if "memory" in only else files if "files" in only else anatomy


def recognise(anatomy: Anatomy, names: Iterable[str]) -> dict[str, TensorSpec]:
    """Meaning of the stored names that the table knows, without looking at shapes or completeness."""
    other = anatomy.in_layout("memory" if anatomy.layout == "files" else "files")
    accepted = anatomy.stored_names if other is anatomy else {**other.stored_names, **anatomy.stored_names}
    renamed = {stored: _renamed(anatomy, stored) for stored in names}
    return {stored: accepted[name] for stored, name in renamed.items() if name in accepted}


def _renamed(anatomy: Anatomy, stored: str) -> str:
    for pattern, replacement in anatomy.table.renames.items():
        stored = re.sub(pattern, replacement, stored)
    return stored


def accepted_names(anatomy: Anatomy) -> dict[str, TensorSpec]:
    """Every stored name that the table allows, with its meaning."""
    names: dict[str, TensorSpec] = {}
    prefix = anatomy.table.prefix
    for spec in anatomy.tensors.values():
        for name in (spec.name, *spec.aliases):
            names[name] = spec
            if prefix and name.startswith(prefix):
                names[name.removeprefix(prefix)] = spec
    return names


def _hint(anatomy: Anatomy, name: str, names: Mapping[str, TensorSpec]) -> str:
    numbered = {(spec.template, spec.stack) for spec in anatomy.tensors.values() if spec.layer is not None}
    for template, stack in sorted(numbered):
        pattern = re.escape(template.removeprefix(anatomy.table.prefix))
        block = pattern.partition(r"\{l\}")[0] + r"(\d+)\."
        layers = anatomy.layers[str(stack)]
        if (place := re.search(rf"(?:^|\.){block}", name)) and int(place[1]) >= layers:
            return f"the config promises {layers} {stack} layers"
        pattern = pattern.replace(r"\{l\}", r"\d+").replace(r"\{x\}", r"(\d+)")
        if "{x}" in template and re.search(rf"(?:^|\.){pattern}$", name):
            return f"the config promises {anatomy.sizes['X']} experts"
    return "check config.json; " + nearest(name, names)


def _check_shape(
    anatomy: Anatomy, spec: TensorSpec, stored: str, shape: tuple[int, ...], where: object
) -> None:
    if shape == spec.shape:
        return
    wrong = [dim for dim, size in zip(spec.dims, shape) if dim.size != size] or list(spec.dims)
    letters = {factor.axis for dim in wrong for factor in dim.factors if factor.axis}
    keys = [key for key in anatomy.table.config if letters & set(anatomy.config_axes(key))]
    raise UserError(
        f"the tensor {stored!r} has shape {shape}, expected {spec.shape} = ({_describe(spec.dims)})",
        where=where,
        fix=f"check {', '.join(keys) or 'the sizes'} in config.json against the weights",
    )


def _describe(dims: tuple[Dim, ...]) -> str:
    def one(dim: Dim) -> str:
        return "·".join(f"{f.axis}={f.size}" if f.axis else str(f.size) for f in dim.factors)

    return ", ".join(one(dim) for dim in dims)


def _check_complete(anatomy: Anatomy, found: set[str], prefixed: bool, where: object) -> None:
    required: dict[str, list[str]] = defaultdict(list)
    for spec in anatomy.tensors.values():
        if spec.tied_to is None:
            required[spec.unit].append(spec.name)
        elif spec.name in found:
            found = found | {spec.tied_to}  # the same storage under its other name
    optional = set(anatomy.table.optional_units)
    missing = [
        name
        for unit, members in required.items()
        for name in members
        if name not in found and (unit not in optional or any(other in found for other in members))
    ]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(
            f"the tensor {missing[0]!r}{more} is missing",
            where=where,
            fix="the checkpoint is incomplete or its config belongs to another model",
        )
    heads = anatomy.table.head_units
    if prefixed and not any(all(name in found for name in required[unit]) for unit in heads):
        raise UserError(
            "the tensor names are those of a model with a head, but no head is there",
            where=where,
            fix=f"expected for example {required[heads[0]][0]!r}",
        )
