"""A surgery on a stored checkpoint: its names on disk, and the new checkpoint written tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmstart.anatomy import Anatomy, TensorSpec, anatomy_of
from warmstart.checkpoint import Checkpoint, Lineage
from warmstart.checkpoint.shards import Planned, TensorReader
from warmstart.checkpoint.stream import stream_checkpoint
from warmstart.foundation.errors import UserError
from warmstart.foundation.progress import note
from warmstart.shape.reshape import Reshape

if TYPE_CHECKING:
    import torch


class Stored:
    """A checkpoint's tensors by their canonical names.

    Args:
        checkpoint: A folder of an ordinary form.

    Raises:
        UserError: An architecture without a table, weights that do not fit it, or factorised rows.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        if checkpoint.form is not None:
            raise UserError(
                f"the checkpoint is of the form {checkpoint.form['form']}",
                where=checkpoint.path,
                fix="make it an ordinary one first",
            )
        self.checkpoint = checkpoint
        config, shapes = checkpoint.config, checkpoint.shapes
        anatomy = anatomy_of(config, where=checkpoint.path)
        specs = anatomy.match(shapes, where=checkpoint.path)
        if anatomy.tied and _has_own_head(anatomy, specs, checkpoint):
            anatomy = anatomy_of(config, tied=False, where=checkpoint.path)  # T5 1.1 does not say so
            specs = anatomy.match(shapes, where=checkpoint.path)
        self.anatomy = anatomy
        self.names: dict[str, str] = {}
        for name, spec in specs.items():
            owner = spec.tied_to or spec.name
            if owner not in self.names or spec.tied_to is None:
                self.names[owner] = name
        self._reader = TensorReader(checkpoint.tensors)

    def read(self, name: str) -> torch.Tensor:
        """The tensor of a canonical name."""
        return self._reader.read(self.names[name])

    def plan(self, reshape: Reshape) -> Iterator[tuple[Planned, TensorSpec]]:
        """What the surgery's checkpoint stores, under names like those of this one."""
        for spec in reshape.new.tensors.values():
            if spec.tied_to is not None:
                continue
            old = reshape.origin(spec)
            if old.name in self.names:
                stored = self.names[old.name]
                name = stored if spec.layer == old.layer else _moved(stored, old.layer, spec.layer)
                yield Planned(name, self.checkpoint.tensors[stored].dtype, spec.shape), spec

    def config(self, new: Anatomy) -> dict[str, Any]:
        """The stored configuration with what changed."""
        old = self.anatomy.config
        changed = {key: value for key, value in new.config.items() if key not in old or old[key] != value}
        gone = [key for key in self.checkpoint.config if key not in new.config]
        return {k: v for k, v in self.checkpoint.config.items() if k not in gone} | changed


def _has_own_head(anatomy: Anatomy, specs: Mapping[str, TensorSpec], checkpoint: Checkpoint) -> bool:
    """Whether a head is stored beside the input rows that the configuration ties it to, and differs."""
    import torch

    if anatomy.table.vocabulary is None:
        return False
    heads = [name for name, spec in specs.items() if spec.name == anatomy.table.vocabulary.head_rows]
    rows = [name for name, spec in specs.items() if spec.name in anatomy.vocabulary.input_rows]
    if not heads or not rows:
        return False
    reader = TensorReader(checkpoint.tensors)
    pairs = zip(reader.pieces(heads[0], 1 << 20), reader.pieces(rows[0], 1 << 20))
    return any(not torch.equal(ours, theirs) for ours, theirs in pairs)


def _moved(name: str, old: int | None, new: int | None) -> str:
    return name.replace(f".{old}.", f".{new}.", 1)


def write_reshaped(
    stored: Stored,
    reshape: Reshape,
    out: Path,
    *,
    operation: str,
    settings: Any,
    data: Mapping[str, str] | None = None,
    measured: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Write the checkpoint that a surgery makes, tensor by tensor; the lineage says what became of the
    function.

    Args:
        stored: The checkpoint that exists.
        reshape: The surgery.
        out: Folder to create; one that is there is replaced.
        operation: Name of the operation, for the lineage.
        settings: Of the step; they have `seed` and `max_shard_size`.
        data: Name of a corpus that was read to its fingerprint.
        measured: Further numbers for the lineage.
    """
    plan = dict(stored.plan(reshape))
    names = {planned.name: spec.name for planned, spec in plan.items()}
    found = {
        "parameters before": sum(stored.anatomy.tensors[name].size for name in stored.names),
        "parameters": sum(spec.size for spec in plan.values()),
        "function": "changed: " + "; ".join(reshape.inexact) if reshape.inexact else "unchanged",
    }
    note(f"{found['parameters before']:,} parameters become {found['parameters']:,}; function "
         f"{found['function']}")  # fmt: skip
    return stream_checkpoint(
        out,
        stored.checkpoint,
        list(plan),
        lambda name: reshape.tensor(names[name], stored.read),
        config=stored.config(reshape.new),
        lineage=Lineage.of(
            operation,
            settings,
            parents=[stored.checkpoint],
            data=data,
            seeds={"seed": settings.seed},
            measured=found | dict(measured or {}),
        ),
        replace=True,
        max_shard_size=settings.max_shard_size,
    )
