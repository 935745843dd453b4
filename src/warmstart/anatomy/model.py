"""The anatomy of one model: the family table filled in with the sizes of a config."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from warmstart.anatomy import counting, matching
from warmstart.anatomy.building import build_tensors, config_names, layer_counts, measure
from warmstart.anatomy.expressions import evaluate, variables
from warmstart.anatomy.groups import AxisGroup, VocabularySites, axis_groups
from warmstart.anatomy.notation import Layout, Tensor, TensorSpec
from warmstart.anatomy.tables import FamilyTable, table_for
from warmstart.anatomy.traits import Traits
from warmstart.foundation.errors import UserError, nearest
from warmstart.foundation.tasks import Task

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class Anatomy(Traits):
    """What the weights of one model mean. Build it with [`anatomy_of`][warmstart.anatomy.model.anatomy_of].

    Attributes:
        table: The family table.
        config: The config with the family's defaults filled in.
        tied: Whether the head's rows are the input rows.
        sizes: Size of every axis letter.
        layers: Number of blocks per stack.
        layout: `files` or `memory`: which names and shapes `tensors` has, where transformers 5 stores a
            family otherwise than it holds it (mixtures of experts, ViT); `files` everywhere else.
        tensors: Canonical name to meaning, for every unit that a model class of the family may have.
    """

    table: FamilyTable
    config: Mapping[str, Any]
    tied: bool
    sizes: Mapping[str, int]
    layers: Mapping[str, int]
    layout: Layout
    tensors: Mapping[str, TensorSpec] = field(repr=False)

    def __reduce__(self) -> tuple[Any, ...]:  # read-only views do not pickle; the config says everything
        return (_rebuild, (dict(self.config), self.tied, self.layout))

    @property
    def family(self) -> str:
        """Name of the family table, such as `llama` for a Qwen3."""
        return self.table.family

    @property
    def model_type(self) -> str:
        """Architecture name of the config."""
        return str(self.config["model_type"])

    @property
    def names(self) -> dict[str, Any]:
        """Every name that table expressions can use."""
        return config_names(self.table, self.config, self.tied)

    @property
    def task(self) -> Task:
        """What the language model of this config predicts.

        Raises:
            UserError: The family reads no text.
        """
        if self.table.task is None:
            raise UserError(f"a {self.model_type} is no language model", fix="use one that reads text")
        task: Task = evaluate(self.table.task, self.names)
        return task

    @property
    def max_length(self) -> int | None:
        """Longest input in tokens (of images in patches), or None when positions have no limit."""
        return None if self.table.max_length is None else int(evaluate(self.table.max_length, self.names))

    @cached_property
    def language_model(self) -> Mapping[str, TensorSpec]:
        """The tensors of the model with its language-model head (of a vision model, its classifier)."""
        return {name: spec for name, spec in self.tensors.items() if spec.unit in self.table.units}

    @cached_property
    def stored_names(self) -> Mapping[str, TensorSpec]:
        """Every name under which a tensor may be stored: canonical, without prefix, aliases."""
        return MappingProxyType(matching.accepted_names(self))

    @cached_property
    def vocabulary(self) -> VocabularySites:
        """Where the vocabulary axis lives.

        Raises:
            UserError: The family has no vocabulary.
        """
        table, names = self.table.vocabulary, self.names
        if table is None:
            raise UserError(f"a {self.model_type} has no vocabulary", fix="use a model that reads text")
        return VocabularySites(
            input_rows=table.input_rows,
            head_rows=None if self.tied else table.head_rows,
            head_bias=table.head_bias,
            tied=self.tied,
            embedding_scale=float(evaluate(table.embedding_scale, names)),
            head_scale=float(evaluate(table.head_scale, names)),
        )

    @cached_property
    def groups(self) -> Mapping[str, AxisGroup]:
        """Axis groups by name; see [`AxisGroup`][warmstart.anatomy.groups.AxisGroup]."""
        return MappingProxyType(axis_groups(self.table, self.tensors))

    @cached_property
    def _other(self) -> Anatomy | None:
        other: Layout = "memory" if self.layout == "files" else "files"
        return _rebuild(dict(self.config), self.tied, other) if self.table.two_layouts else None

    def in_layout(self, layout: Layout) -> Anatomy:
        """The same model with the names and shapes of `files` or of `memory`, and the same axis groups."""
        return self if self._other is None or layout == self.layout else self._other

    def group(
        self, axis: str, *, stack: str | None = None, layer: int | None = None, expert: int | None = None
    ) -> AxisGroup:
        """The group of an axis letter, at a stack, layer and expert where its scope needs them.

        Raises:
            UserError: There is no such axis or place in this model.
        """
        scope = self.table.axes[axis].scope if axis in self.table.axes else None
        stack = stack or next(iter(self.layers))
        block = f"{axis}@{stack}.{layer}"
        name = {"stack": f"{axis}@{stack}", "layer": block, "expert": f"{block}.{expert}"}.get(
            scope or "", axis
        )
        for group in (self.groups.get(name), *self.groups.values()):
            if group and (group.name == name or (scope == "global" and axis in group.axes)):
                return group
        raise UserError(f"no axis group {name!r} in this {self.model_type}", fix=nearest(name, self.groups))

    def axes(self, sizes: Mapping[str, int] | None = None) -> dict[str, int]:
        """Size of every axis, after replacing some of them; what the class derives follows.

        Raises:
            UserError: The model class cannot have these sizes (GPT-2 with `e` other than `H / h`).
        """
        return dict((self.resized(sizes) if sizes else self).sizes)

    def config_updates(
        self, sizes: Mapping[str, int] | None = None, layers: Mapping[str, int] | None = None
    ) -> dict[str, Any]:
        """Config keys to rewrite for new axis sizes and layer numbers, with their values.

        Lists with one entry per layer (`layer_types`) or of layers (`mlp_only_layers`) are left to the
        caller, who knows which layers stay.
        """
        known = {**self.sizes, **self.layers}
        for name in (*(sizes or {}), *(layers or {})):
            if name not in known:
                raise UserError(f"no axis or stack {name!r} in {self.family}", fix=nearest(name, known))
        names: dict[str, Any] = {**self.names, **self.sizes, **(sizes or {})}
        names |= {f"layers_{stack}": n for stack, n in {**self.layers, **(layers or {})}.items()}
        new = {key: evaluate(expression, names) for key, expression in self.table.config.items()}
        return {key: value for key, value in new.items() if value not in (None, self.config.get(key))}

    def resized(
        self, sizes: Mapping[str, int] | None = None, layers: Mapping[str, int] | None = None
    ) -> Anatomy:
        """The anatomy of the same model class with other axis sizes or layer numbers.

        Raises:
            UserError: The model class cannot have these sizes.
        """
        new = _rebuild({**self.config, **self.config_updates(sizes, layers)}, self.tied, self.layout)
        for axis, size in (sizes or {}).items():
            if new.sizes[axis] != size:
                raise UserError(
                    f"{self.model_type} cannot have {self.table.axes[axis].meaning} {axis}={size}: "
                    f"its class sets {axis} = {self.table.axes[axis].size} = {new.sizes[axis]}",
                    fix="choose sizes that agree",
                )
        return new

    def config_axes(self, key: str) -> tuple[str, ...]:
        """Axis letters that decide the config key `key`."""
        return variables(self.table.config[key])

    def match(self, shapes: Mapping[str, Any], *, where: object = None) -> dict[str, TensorSpec]:
        """Stored name to meaning; see [`match`][warmstart.anatomy.matching.match]."""
        return matching.match(self, shapes, where=where)

    def recognise(self, names: Iterable[str]) -> dict[str, TensorSpec]:
        """Stored name to meaning by names alone; names that are unknown or hold no parameter are left out."""
        return matching.recognise(self, names)

    def spec(self, name: str) -> TensorSpec:
        """Meaning of the tensor stored under `name` (with or without prefix, or an alias).

        Raises:
            UserError: The name is unknown.
        """
        if found := self.recognise([name]):
            return found[name]
        raise UserError(f"no tensor {name!r} in this {self.model_type}", fix=nearest(name, self.tensors))

    def view(self, name: str, tensor: Tensor) -> Tensor:
        """Reshape the tensor stored under `name` to one dimension per factor axis."""
        return self.spec(name).view(tensor)

    def unview(self, name: str, tensor: Tensor) -> Tensor:
        """Reshape a viewed tensor back to its stored dimensions."""
        return self.spec(name).unview(tensor)

    def parameters(self, names: Iterable[str] | None = None) -> counting.ParameterCounts:
        """Parameters per part of the language model, or of the stored tensors `names`."""
        return counting.count_parameters(self, names)

    def flops(
        self, sequence_length: int, *, target_length: int | None = None, predicted_fraction: float = 1.0
    ) -> float:
        """FLOPs of one forward pass over one sequence; see
        [`count_flops`][warmstart.anatomy.counting.count_flops]."""
        return counting.count_flops(
            self, sequence_length, target_length=target_length, predicted_fraction=predicted_fraction
        )


def anatomy_of(
    config: PretrainedConfig | Mapping[str, Any],
    *,
    tied: bool | None = None,
    layout: Layout = "files",
    where: object = None,
) -> Anatomy:
    """The anatomy that a config promises.

    Args:
        config: A transformers config, or the content of `config.json`.
        tied: Whether the head's rows are the input rows, where it is known better than from the config
            (transformers 5 decides for T5 when it loads the weights).
        layout: Names and shapes of stored files, or of a model of transformers 5 in memory.
        where: File or folder, for the message.

    Raises:
        UserError: The architecture has no table, or the sizes are missing, malformed or contradictory.
    """
    given = dict(config) if isinstance(config, Mapping) else config.to_dict()
    table = table_for(given.get("model_type"), where=where)
    defaults = table.models[given["model_type"]]
    full = {**defaults, **given}
    if tied is None:
        tied = bool(evaluate(table.tied, full))
    names = config_names(table, full, tied)
    sizes = measure(table, names, where)
    layers = layer_counts(table, names, where)
    layout = layout if table.two_layouts else "files"
    tensors = build_tensors(table, names, sizes, layers, layout)
    frozen = MappingProxyType(full), tied, MappingProxyType(sizes), MappingProxyType(layers)
    return Anatomy(table, *frozen, layout, MappingProxyType(tensors))


def _rebuild(config: dict[str, Any], tied: bool, layout: Layout) -> Anatomy:
    return anatomy_of(config, tied=tied, layout=layout)


def anatomy_of_model(model: PreTrainedModel) -> Anatomy:
    """The anatomy of a loaded model, its weights matched and its tying read from the weights themselves.

    Its layout is that of the model's own state, `memory` where the family has two.

    A model of another form, such as factorised rows, has the anatomy of the dense one.

    Raises:
        UserError: As [`anatomy_of`][warmstart.anatomy.model.anatomy_of] and
            [`match`][warmstart.anatomy.matching.match].
    """
    from warmstart.checkpoint.forms import shapes_of

    head, rows = model.get_output_embeddings(), model.get_input_embeddings()
    tied = None if head is None else head.weight is rows.weight
    anatomy, shapes, name = anatomy_of(model.config, tied=tied), shapes_of(model), type(model).__name__
    anatomy = matching.fitting(anatomy, shapes, where=name)
    anatomy.match(shapes, where=name)
    return anatomy
