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
    from warmstart.checkpoint import resolve
    from warmstart.shape.grow import grow
    from warmstart.shape.stored import Stored, write_reshaped

    stored = Stored(resolve(settings.source, trust_remote_code=settings.trust_remote_code))
    plain = {name: getattr(settings, name) for name in GrowSettings.model_fields}
    reshape = grow(stored.anatomy, GrowSettings.model_validate(plain))
    write_reshaped(stored, reshape, folder / "output", operation="grow", settings=settings)
