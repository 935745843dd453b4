"""Merging checkpoints of one shape into one, tensor by tensor."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator

from warmstart.checkpoint import Checkpoint, Lineage
from warmstart.checkpoint.architecture import configuration
from warmstart.checkpoint.shards import Planned, TensorReader, torch_type, type_name
from warmstart.checkpoint.stream import stream_checkpoint
from warmstart.foundation.errors import UserError
from warmstart.foundation.progress import note
from warmstart.foundation.settings import Settings
from warmstart.shape.draws import generator_of
from warmstart.shape.merge import Tensors, merges
from warmstart.shape.merge_values import Values, layer_of, value_at

if TYPE_CHECKING:
    import torch

_PIECE = 1 << 22
_HEADS = re.compile(r"(n|num)_(attention_|key_value_)?heads?|head_dim|d_kv")
_ASIDE = re.compile(r"token_id|drop|initializer|^use_cache|transformers_version|^_|architectures|dtype|label")
"""Keys of a configuration that say nothing about the function that merged weights compute."""
_FLOATS = ("F64", "F32", "F16", "BF16")


class MergeModel(Settings):
    """One model of a merge."""

    model: str = Field(min_length=1)
    """Checkpoint: folder, hub id, `name@revision`, named source or `${step}`."""
    parameters: dict[str, Values] = Field(default_factory=dict)
    """`weight` and `density` of this model; numbers, or numbers by layer and by name (see `parameters` of the
    merge)."""


class MergeSettings(Settings):
    """Which models, and how they are merged; keys are those of mergekit's files."""

    models: list[MergeModel | str] = Field(min_length=1)
    """Checkpoints of one shape and one tokenizer, or tables `{model: …, parameters: {weight: 0.3}}`."""
    base_model: str | None = None
    """What the models were tuned from, for ways that merge changes; and where tokenizer and configuration
    come from, else from the first model."""
    merge_method: str | dict[str, Any] = "linear"
    """How: `linear`, `slerp`, `task-arithmetic`, `ties`, `dare`, `bai`; or a table with the way's own
    settings."""
    parameters: dict[str, Values] = Field(default_factory=dict)
    """Parameters of all models: `weight`, `density`, `t`, `lambda`. A number; a list of numbers, spread
    evenly over the layers from the first to the last; or a list of `{filter: mlp, value: …}`, of which the
    first counts whose filter occurs in a tensor's name (one without a filter fits all)."""
    dtype: Literal["float32", "bfloat16", "float16", "float64"] | None = None
    """Type of the stored weights; that of the base or first model where not given. Merging itself is done in
    float32 (float64 for float64 weights)."""
    seed: int = Field(default=0, ge=0)
    """Seed of what is drawn at random."""
    max_shard_size: str = "5GB"
    """Largest file of the new checkpoint."""

    @field_validator("merge_method", mode="before")
    @classmethod
    def _spelling(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {k: v.replace("_", "-") if k == "name" else v for k, v in value.items()}
        return value.replace("_", "-") if isinstance(value, str) else value

    @field_validator("models", mode="after")
    @classmethod
    def _tables(cls, value: list[MergeModel | str]) -> list[MergeModel | str]:
        return [MergeModel(model=item) if isinstance(item, str) else item for item in value]

    @model_validator(mode="after")
    def _something_to_merge(self) -> MergeSettings:
        if len(self.models) == 1 and self.base_model is None:
            raise ValueError("one model alone cannot be merged; name another one, or its base_model")
        return self

    @property
    def tables(self) -> list[MergeModel]:
        """The models as tables."""
        return [item for item in self.models if isinstance(item, MergeModel)]


def merge(
    settings: MergeSettings,
    models: list[Checkpoint],
    base: Checkpoint | None,
    out: Path,
    *,
    lineage: Lineage,
    replace: bool = False,
) -> Checkpoint:
    """Merge stored checkpoints; memory holds pieces of one tensor of each.

    Args:
        settings: Which way, and its parameters.
        models: In the order of the settings.
        base: The base model, or None.
        out: Folder to create.
        lineage: Where the result comes from.
        replace: Whether an existing `out` may be replaced.

    Raises:
        UserError: Models that differ in family, shape or tokenizer (it says what differs first), or
            parameters that the way cannot use.
    """
    import torch

    way, own = merges.choose(settings.merge_method, where="merge")
    first = base or models[0]
    for other in [*models, *([base] if base is not None else [])]:
        check_alike(first, other)
    readers = [TensorReader(model.tensors) for model in models]
    base_reader = TensorReader(base.tensors) if base is not None else None
    count = _layer_count(first.tensors)

    def produce(name: str) -> Iterator[torch.Tensor]:
        header, kind = first.tensors[name], types[name]
        if header.dtype not in _FLOATS:
            return iter([TensorReader(first.tensors).read(name)])
        wide = torch.float64 if header.dtype == "F64" else torch.float32
        at = partial(value_at, name=name, layers=count)
        tensors = Tensors(
            name=name,
            models=[partial(_wide, reader, name, wide) for reader in readers],
            base=None if base_reader is None else partial(_wide, base_reader, name, wide),
            weights=[at(settings.parameters | table.parameters, "weight") for table in settings.tables],
            densities=[at(settings.parameters | table.parameters, "density") for table in settings.tables],
            shared={k: v for k in ("t", "lambda") if (v := at(settings.parameters, k)) is not None},
            generator=generator_of(settings.seed, name),
        )
        return (piece.to(kind) for piece in way.target(own, tensors))

    asked = None if settings.dtype is None else type_name(settings.dtype)
    types = {
        name: torch_type(asked if asked and header.dtype in _FLOATS else header.dtype)
        for name, header in first.tensors.items()
    }
    plan = [Planned(name, type_name(types[name]), header.shape) for name, header in first.tensors.items()]
    config = {**first.config, **({"dtype": settings.dtype} if settings.dtype else {})}
    return stream_checkpoint(
        out,
        first,
        plan,
        produce,
        config=config,
        lineage=lineage,
        card={"relation": "merge"},
        replace=replace,
        max_shard_size=settings.max_shard_size,
    )


def check_alike(first: Checkpoint, other: Checkpoint) -> None:
    """Refuse models that cannot be merged entry by entry, and say what differs first.

    What their configurations say otherwise without changing a shape, such as `rope_theta`, is noted: the
    result has it as the first model does.

    Raises:
        UserError: Another family, a tensor that one lacks, another shape, other heads, or another tokenizer.
    """
    where = other.path
    if first.family != other.family:
        raise UserError(
            f"a {other.family} cannot be merged with a {first.family}",
            where=where,
            fix="take models of one family",
        )
    for name, header in first.tensors.items():
        if name not in other.tensors:
            raise UserError(f"the model lacks the tensor {name}, which {first.name} has", where=where)
        if other.tensors[name].shape != header.shape:
            raise UserError(
                f"the tensor {name} has the shape {other.tensors[name].shape}, in {first.name} it is "
                f"{header.shape}",
                where=where,
                fix="only models of one shape are merged: reshape it, or `transplant` the tokenizer, first",
            )
    if extra := sorted(other.tensors.keys() - first.tensors.keys()):
        raise UserError(f"the model has the tensor {extra[0]}, which {first.name} lacks", where=where)
    _compare_configurations(first, other)
    ours, theirs = (_vocabulary(checkpoint) for checkpoint in (first, other))
    if ours is not None and theirs is not None and ours != theirs:
        token = min((token for token, _ in ours.items() ^ theirs.items()), key=lambda t: (len(t), t))
        places = [str(vocabulary.get(token, "no id")) for vocabulary in (theirs, ours)]
        raise UserError(
            f"the tokenizers differ: {token!r} is {places[0]} here and {places[1]} in {first.name}",
            where=where,
            fix="`transplant` one tokenizer to all models first",
        )


def _compare_configurations(first: Checkpoint, other: Checkpoint) -> None:
    ours, theirs = (configuration(checkpoint.config) for checkpoint in (first, other))
    for key in ours.keys() | theirs.keys():
        if _HEADS.fullmatch(key) and ours.get(key) != theirs.get(key):
            raise UserError(
                f"{key} is {theirs.get(key)}, in {first.name} it is {ours.get(key)}",
                where=other.path,
                fix="only models whose heads are alike are merged",
            )
    differ = sorted(k for k in ours.keys() & theirs.keys() if ours[k] != theirs[k] and not _ASIDE.search(k))
    if differ:
        said = "; ".join(f"{key}: {theirs[key]} and {ours[key]}" for key in differ)
        note(f"the configurations of {other.name} and {first.name} differ, and the latter is taken: {said}")


def _vocabulary(checkpoint: Checkpoint) -> Mapping[str, int] | None:
    from warmstart.checkpoint.tokens import has_tokenizer

    return checkpoint.load_tokenizer().get_vocab() if has_tokenizer(checkpoint.path) else None


def _wide(reader: TensorReader, name: str, wide: torch.dtype) -> Iterator[torch.Tensor]:
    return (piece.to(wide) for piece in reader.pieces(name, _PIECE))


def _layer_count(tensors: Mapping[str, Any]) -> int:
    return 1 + max((layer for name in tensors if (layer := layer_of(name)) is not None), default=0)
