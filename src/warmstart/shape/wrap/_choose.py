"""Which linear maps of a model: by what the family's table says of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from warmstart.anatomy import Anatomy, TensorSpec, anatomy_of_model
from warmstart.checkpoint.forms._wrapped import LINEAR
from warmstart.foundation.errors import UserError, nearest
from warmstart.shape.wrap import Place

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROLES = ("all", "attention", "mlp", "queries", "outputs")
"""Choices that every family has."""


def choose(model: PreTrainedModel, maps: Sequence[str]) -> tuple[Place, ...]:
    """The linear maps of the blocks that `maps` name, in the order of the model.

    Args:
        model: A loaded model of an ordinary form.
        maps: `all`, `attention`, `mlp`, `queries` (all of a fused q, k, v matrix), `outputs` (what is added
            to the residual stream), or the last words of a module's name as the family has them, such as
            `v_proj` or `self.value`.

    Raises:
        UserError: An architecture without a table, or a name that chooses nothing.
    """
    from transformers.pytorch_utils import Conv1D

    anatomy = anatomy_of_model(model)
    modules = {f"{name}.weight": m for name, m in model.named_modules() if type(m) in LINEAR}
    specs = {
        name: spec
        for name, spec in anatomy.recognise(modules).items()
        if spec.layer is not None and spec.part in ("attention", "mlp")
    }
    chosen: set[str] = set()
    for wanted in maps:
        found = {name for name, spec in specs.items() if _meant(wanted, spec, anatomy)}
        if not found:
            words = {_module(spec).rpartition(".")[2] for spec in specs.values()}
            raise UserError(
                f"a {anatomy.model_type} has no linear maps {wanted!r}",
                where="maps",
                fix=f"{nearest(wanted, {*ROLES, *words})}; its maps are {', '.join(sorted(words))}",
            )
        chosen |= found

    def place(name: str) -> Place:
        spec, module = specs[name], modules[name]
        layers = anatomy.layers[str(spec.stack)]
        kind = f"{spec.stack} {spec.template}"
        return Place(name.removesuffix(".weight"), module, kind, int(spec.layer or 0), layers,
                     isinstance(module, Conv1D))  # fmt: skip

    return tuple(place(name) for name in specs if name in chosen)


def _meant(wanted: str, spec: TensorSpec, anatomy: Anatomy) -> bool:
    if wanted in ("all", spec.part):
        return True
    place: Any = (str(spec.stack), int(spec.layer or 0))
    if wanted == "queries":
        return spec.name in anatomy.queries(*place)
    if wanted == "outputs":
        return spec.name in anatomy.outputs(*place)
    return f".{_module(spec)}".endswith(f".{wanted}")


def _module(spec: TensorSpec) -> str:
    return spec.template.removesuffix(".weight")
