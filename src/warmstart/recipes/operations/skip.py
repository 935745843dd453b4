"""Step type `skip`: give the blocks of a decoder skip routers."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner
from warmstart.shape.skip import SkipSettings


class SkipStep(SkipSettings):
    """Let each token of a pretrained decoder go through a block or around it; training teaches which."""

    source: str = Field(min_length=1)
    """Pre-norm decoder: folder, hub id, `name@revision`, named source or `${step}`. Routers that it has are
    kept, and asked anew."""


@operations.register(
    "skip", settings=SkipStep, title="Learning to Skip for Language Modeling", arxiv="2311.15436"
)
def skip_step(settings: SkipStep, folder: Path, runner: Runner) -> None:
    """Add routers that send every token through; the step `train` teaches them what can be skipped."""
    import warmstart.recipes.sources  # noqa: F401  named sources become known to `resolve`
    from warmstart.checkpoint import Lineage, resolve, save_checkpoint
    from warmstart.foundation.progress import note
    from warmstart.shape.skip import attach

    source = resolve(settings.source)
    model, tokenizer = source.load_model(dtype="auto"), source.load_tokenizer()
    plain = {name: getattr(settings, name) for name in SkipSettings.model_fields}
    measured = attach(model, SkipSettings.model_validate(plain), where=source.path)
    note(f"function {measured['function']}")
    lineage = Lineage.of("skip", settings, parents=[source], seeds={"seed": settings.seed}, measured=measured)
    save_checkpoint(folder / "output", model, tokenizer, lineage=lineage, replace=True, verify=True)
