"""Step type `grow`: a larger model from a smaller one."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner
from warmstart.shape.grow import GrowSettings


class GrowStep(GrowSettings):
    """Make a model wider or deeper, tensor by tensor; nothing is trained."""

    source: str = Field(min_length=1)
    """Checkpoint to grow: folder, hub id, `name@revision`, named source or `${step}`."""
    max_shard_size: str = "5GB"
    """Largest file of the new checkpoint."""
    trust_remote_code: bool = False
    """Run code that the checkpoint brings along."""


@operations.register("grow", settings=GrowStep, tags=("streams",))
def grow_step(settings: GrowStep, folder: Path, runner: Runner) -> None:
    """Grow a checkpoint; its lineage says whether the function stayed what it was, and if not, why."""
    from warmstart.checkpoint import Lineage, resolve
    from warmstart.foundation.progress import note
    from warmstart.shape.grow import grow
    from warmstart.shape.stored import Stored, write_reshaped

    source = resolve(settings.source, trust_remote_code=settings.trust_remote_code)
    stored = Stored(source)
    plain = GrowSettings.model_validate({name: getattr(settings, name) for name in GrowSettings.model_fields})
    reshape = grow(stored.anatomy, plain)
    measured = {
        "parameters before": sum(stored.anatomy.tensors[name].size for name in stored.names),
        "parameters": sum(spec.size for _, spec in stored.plan(reshape)),
        "function": "changed: " + "; ".join(reshape.inexact) if reshape.inexact else "unchanged",
    }
    note(f"function {measured['function']}")
    lineage = Lineage.of("grow", settings, parents=[source], seeds={"seed": settings.seed}, measured=measured)
    write_reshaped(
        stored,
        reshape,
        folder / "output",
        lineage=lineage,
        replace=True,
        max_shard_size=settings.max_shard_size,
    )
