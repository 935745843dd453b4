"""Step type `upcycle`: a mixture of experts from a dense model."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner
from warmstart.shape.upcycle import UpcycleSettings


class UpcycleStep(UpcycleSettings):
    """Make a dense decoder into a mixture of experts, tensor by tensor; nothing is trained."""

    source: str = Field(min_length=1)
    """Dense checkpoint: folder, hub id, `name@revision`, named source or `${step}`."""
    max_shard_size: str = "5GB"
    """Largest file of the new checkpoint."""


@operations.register(
    "upcycle",
    settings=UpcycleStep,
    title="Upcycling Large Language Models into Mixture of Experts",
    arxiv="2410.07524",
    tags=("streams",),
)
def upcycle_step(settings: UpcycleStep, folder: Path, runner: Runner) -> None:
    """Upcycle a checkpoint; its lineage says whether the function stayed what it was, and if not, why."""
    import functools
    import math

    from warmstart.checkpoint import Lineage, resolve
    from warmstart.checkpoint.shards import Planned, TensorReader
    from warmstart.checkpoint.stream import stream_checkpoint
    from warmstart.foundation.progress import note
    from warmstart.shape.stored import Stored
    from warmstart.shape.upcycle import upcycle

    source = resolve(settings.source)
    names = Stored(source).names.values()  # refuses what the family's table does not know
    stored = {name: Planned(name, source.tensors[name].dtype, source.tensors[name].shape) for name in names}
    plain = {name: getattr(settings, name) for name in UpcycleSettings.model_fields}
    made = upcycle(source.config, stored, UpcycleSettings.model_validate(plain), where=source.path)
    measured = {
        "parameters before": sum(math.prod(tensor.shape) for tensor in stored.values()),
        "parameters": sum(math.prod(tensor.shape) for tensor in made.tensors),
        "function": "changed: " + "; ".join(made.inexact) if made.inexact else "unchanged",
    }
    note(f"function {measured['function']}")
    lineage = Lineage.of(
        "upcycle", settings, parents=[source], seeds={"seed": settings.seed}, measured=measured
    )
    read = functools.lru_cache(maxsize=1)(TensorReader(source.tensors).read)  # all experts copy one tensor
    stream_checkpoint(
        folder / "output",
        source,
        made.tensors,
        lambda name: made.tensor(name, read),
        config=made.config,
        lineage=lineage,
        replace=True,
        max_shard_size=settings.max_shard_size,
    )
