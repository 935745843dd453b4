"""Step type `factorise`: give a checkpoint low-rank vocabulary rows."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from warmstart.foundation.settings import Settings
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner


class FactoriseSettings(Settings):
    """Factorise a checkpoint's vocabulary rows: `rank` numbers per token, and a matrix that all share."""

    source: str = Field(min_length=1)
    """Checkpoint: folder, hub id, `name@revision`, named source or `${step}`."""
    rank: int = Field(ge=1)
    """Numbers per token, at most the width of the model (OFA: 100, 200 or 400 of 768)."""
    split: Literal["balanced", "raw"] = "balanced"
    """`balanced`: both factors have the same scale. `raw`: the numbers per token are tiny and the shared
    matrix large, as in OFA's released code; one learning rate cannot serve both."""
    trust_remote_code: bool = False
    """Run code that the checkpoint brings along."""


@operations.register(
    "factorise",
    settings=FactoriseSettings,
    title="OFA: A Framework of Initializing Unseen Subword Embeddings for Efficient Large-scale Multilingual "
    "Continued Pretraining",
    arxiv="2311.08849",
)
def factorise_step(settings: FactoriseSettings, folder: Path, runner: Runner) -> None:
    """Factorise the vocabulary rows of a checkpoint; training, measuring and transplanting keep the form."""
    from warmstart.checkpoint import Lineage, resolve, save_checkpoint
    from warmstart.vocabulary.factorised_model import factorise_model

    source = resolve(settings.source, trust_remote_code=settings.trust_remote_code)
    model, tokenizer = source.load_model(dtype="auto"), source.load_tokenizer()
    measured = factorise_model(model, settings.rank, split=settings.split)
    lineage = Lineage.of("factorise", settings, parents=[source], measured=measured)
    save_checkpoint(folder / "output", model, tokenizer, lineage=lineage, replace=True, verify=True)
