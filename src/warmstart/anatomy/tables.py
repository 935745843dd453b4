"""Schema and loading of the family tables (`families/*.yaml`): one file per family, data only."""

from __future__ import annotations

from functools import cache, cached_property
from importlib import resources
from typing import Any, Literal, Self

import yaml
from pydantic import Field, field_validator, model_validator

from warmstart.anatomy.notation import Layout, Reads
from warmstart.foundation.errors import UserError, nearest
from warmstart.foundation.settings import Settings

Part = Literal["embeddings", "positions", "attention", "mlp", "norms", "head", "other"]
Scope = Literal["global", "stack", "layer", "expert"]
Expression = str | int | float | bool


class AxisTable(Settings):
    """One axis letter."""

    meaning: str
    """What the axis counts, in words."""
    size: Expression
    """Size as an expression of config keys and of axes above this one."""
    scope: Scope = "layer"
    """Range over which one index map must be shared: the model, one stack, one block, or one expert of it."""
    order: Literal["free", "fixed"] = "free"
    """`free` when entries may be permuted together; `fixed` where the index itself means something."""
    joins: str | None = None
    """Axis whose group this one belongs to …"""
    joins_when: Expression = True
    """… while this expression holds (the tied head's transform must follow the hidden axis)."""
    when: Expression = True
    """Whether models of this config have the axis."""


class EntryTable(Settings):
    """One parameter-name template."""

    dims: str
    """Dimensions and roles in the notation `H:i (3 h e):o`."""
    when: Expression = True
    """Whether this model has the tensor; `layer` is the index of the block."""
    layout: Layout | None = None
    """`files` or `memory`, for a tensor that transformers 5 stores otherwise than it holds it."""
    unit: str = "body"
    """`body`, or a unit that a model class has or lacks as a whole."""
    reads: Reads = "self"
    """`encoder` when the input are another stack's states, `patches` of an image, the `first` token alone."""
    share: Expression = 1
    """Share of the tokens that meet it."""
    aliases: tuple[str, ...] = ()
    """Other stored names of the same tensor."""
    tied_to: str | None = None
    """Weight whose storage it shares …"""
    tied_when: Expression = "tied"
    """… while this expression holds."""


class AttentionTable(Settings):
    """One attention per block, for counting the scores."""

    stack: str
    """Stack whose blocks hold it; its tokens are the queries."""
    heads: Expression
    """Query heads."""
    dim: Expression
    """Size of one head."""
    keys: Literal["self", "encoder"] = "self"
    """Where keys and values come from."""
    when: Expression = True
    """Whether this model has it."""


class NormTable(Settings):
    """The norms of a family."""

    kind: Literal["rms", "layer"]
    """`rms` divides by the root mean square, `layer` subtracts the mean first."""
    eps: str
    """Config key of the constant under the root; all norms of the model share it."""


class QueryTable(Settings):
    """One tensor that scales with the queries."""

    index: int | None = None
    """Place of the queries in the constant factor of a fused q, k, v dimension; nothing when not fused."""
    when: Expression = True
    """Whether a factor of this tensor is a factor of the queries."""


class VocabularyTable(Settings):
    """Where the vocabulary axis lives."""

    input_rows: tuple[str, ...]
    """Input embedding, canonical name first, then aliases."""
    head_rows: str
    """Output rows, `(V, H)`."""
    head_bias: tuple[str, ...] = ()
    """Bias per output row; the first is the one that the model adds."""
    embedding_scale: Expression = 1.0
    """Factor between input rows and the first block."""
    head_scale: Expression = 1.0
    """Factor between the last hidden state and the head."""


class FamilyTable(Settings):
    """Everything that is known about a family of architectures."""

    family: str
    """Name of the table."""
    models: dict[str, dict[str, Any]]
    """`model_type` of each member and the config values that it assumes when a key is absent."""
    task: Expression | None = None
    """`causal`, `masked` or `seq2seq`; nothing for a family that reads no text."""
    prefix: str = ""
    """What the names of a model with a head have in front, and those of the base model lack."""
    stacks: dict[str, Expression]
    """Stacks of blocks and the number of their layers, in order of computation."""
    flags: dict[str, Expression] = Field(default_factory=dict)
    """Named conditions that `when` may use."""
    layer_flags: dict[str, Expression] = Field(default_factory=dict)
    """The same for conditions that differ between blocks: they may use `layer`, the index of the block."""
    tied: Expression
    """Whether the head's rows are the input rows."""
    axes: dict[str, AxisTable]
    """Axis letters, in order of dependence."""
    constraints: tuple[str, ...] = ()
    """Conditions on the sizes that the model class enforces."""
    config: dict[str, Expression]
    """Config keys to rewrite when sizes change, as expressions of axes, of `layers_<stack>` and of the
    config; None leaves a key alone."""
    per_layer_keys: tuple[str, ...] = ()
    """Config keys whose value is a list with one entry per layer."""
    layer_index_keys: tuple[str, ...] = ()
    """Config keys whose value is a list of layer indices."""
    max_length: Expression | None = None
    """Longest input in tokens (of images in patches), or nothing when positions are relative."""
    added_tokens: Expression = 0
    """Tokens that the model itself puts before its input."""
    tensors: dict[Part, dict[str, tuple[EntryTable, ...]]]
    """Name templates per part; `{l}` is the layer, `{x}` the entry of axis `X`. Of several entries the first
    that a model has is taken."""
    attention: tuple[AttentionTable, ...]
    """The attentions of a block."""
    norm: NormTable
    """Kind of the norms and where their epsilon stands."""
    last_norm: str | None
    """Module whose output only the head reads."""
    residual: Literal["pre", "post"]
    """`pre` when a block whose `outputs` are zero is the identity; `post` when norms stand in the stream."""
    rotary: Expression
    """Whether positions rotate the entries of a head."""
    score_scale: Expression
    """Factor of `q·k` before the softmax; `layer` is the index of the block."""
    queries: dict[str, QueryTable]
    """Templates of the tensors that, multiplied by `c` together, multiply the queries by `c`."""
    outputs: tuple[str, ...]
    """Templates of the weights and biases whose output is added to the residual stream."""
    units: tuple[str, ...] = ("body", "head")
    """Units of the language model."""
    optional_units: tuple[str, ...] = ("head",)
    """Units that a model class may lack."""
    head_units: tuple[str, ...] = ("head",)
    """Units that make a model more than its base model."""
    vocabulary: VocabularyTable | None = None
    """Sites of the vocabulary axis, for families that read text."""
    sites: dict[str, tuple[str, ...]]
    """Modules for hooks and adapters: kind to one template per stack, in order of `stacks`."""
    ignore: tuple[str, ...] = ()
    """Regular expressions of stored names that hold no parameter."""
    renames: dict[str, str] = Field(default_factory=dict)
    """Regular expression to replacement for stored names of older releases."""

    @field_validator("tensors", mode="before")
    @classmethod
    def _expand(cls, value: Any) -> Any:
        def entries(entry: Any) -> list[dict[str, Any]]:
            alternatives = entry if isinstance(entry, list) else [entry]
            return [{"dims": item} if isinstance(item, str) else item for item in alternatives]

        return {
            part: {name: entries(entry) for name, entry in (names or {}).items()}
            for part, names in value.items()
        }

    @field_validator("queries", mode="before")
    @classmethod
    def _index(cls, value: Any) -> Any:
        return {name: item if isinstance(item, dict) else {"index": item} for name, item in value.items()}

    @model_validator(mode="after")
    def _templates_exist(self) -> Self:
        known = {template for part in self.tensors.values() for template in part}
        last = (f"{self.last_norm}.weight",) if self.last_norm else ()
        for template in (*self.queries, *self.outputs, *last):
            if template not in known:
                raise ValueError(f"no tensor {template!r} in the table; {nearest(template, known)}")
        return self

    @cached_property
    def two_layouts(self) -> bool:
        """Whether transformers 5 stores this family otherwise than it holds it in memory."""
        entries = (
            entry
            for part in self.tensors.values()
            for alternatives in part.values()
            for entry in alternatives
        )
        return any(entry.layout for entry in entries)


@cache
def tables() -> dict[str, FamilyTable]:
    """`model_type` to family table, for every table that is shipped."""
    found: dict[str, FamilyTable] = {}
    for file in sorted(resources.files(__package__).joinpath("families").iterdir(), key=lambda f: f.name):
        if file.name.endswith(".yaml"):
            table = FamilyTable.parse(yaml.safe_load(file.read_text(encoding="utf-8")), where=file.name)
            for model_type in table.models:
                if model_type in found:
                    raise ValueError(f"{file.name}: {model_type} is already in {found[model_type].family}")
                found[model_type] = table
    return found


def table_for(model_type: object, *, where: object = None) -> FamilyTable:
    """The family table of a `model_type`.

    Raises:
        UserError: No table knows it, or the config names none.
    """
    known = tables()
    if isinstance(model_type, str) and model_type in known:
        return known[model_type]
    if not model_type:
        raise UserError(
            "the config names no model_type", where=where, fix="use a checkpoint saved by transformers"
        )
    raise UserError(
        f"the architecture {model_type!r} is unknown here",
        where=where,
        fix="known are " + ", ".join(sorted(known)),
    )
