"""Step type `rollouts`: what a causal model's own answers to held-out prompts are worth."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from warmstart.corpus.settings import CorpusSettings
from warmstart.evaluation.rollouts import AnsweringSettings
from warmstart.foundation.files import atomic_folder
from warmstart.recipes.operations import operations
from warmstart.recipes.operations.answers import held_out_answers
from warmstart.recipes.runner import Runner


class RolloutsSettings(AnsweringSettings):
    """Answers that a causal model writes itself."""

    source: str = Field(min_length=1)
    """Causal checkpoint: folder, hub id, `name@revision`, named source or `${step}`."""
    corpus: CorpusSettings
    """Texts with an answer at their end."""
    marker: str = Field(default="\nA:", min_length=1)
    """What stands in front of an answer, which goes from the last one to the end of the text."""
    eval_split: Literal["valid", "test"] = "test"
    """Part of the corpus that is read."""
    eval_max_bytes: int = Field(default=65536, gt=0)
    """UTF-8 bytes of whole texts at most, drawn by hash."""
    context_length: int = Field(default=256, ge=4)
    """Tokens of a text at most, its right answer included; longer texts are left out."""
    seed: int = Field(default=0, ge=0)
    """Seed of the sampling; the same one draws the same random numbers for each prompt."""
    bf16: bool = False
    """Whether matrix products run in bfloat16."""


@operations.register("rollouts", settings=RolloutsSettings, tags=("measures",))
def rollouts_step(settings: RolloutsSettings, folder: Path, runner: Runner) -> None:
    """Measure reward, share of right results and of ended answers, and mean length; into `rollouts.json`.

    The model answers each prompt once, by sampling.
    """
    import warmstart.recipes.sources  # noqa: F401  named sources become known to `resolve`
    from warmstart.checkpoint import resolve
    from warmstart.corpus import open_corpus
    from warmstart.evaluation.rollouts import rollouts

    checkpoint, corpus = resolve(settings.source), open_corpus(settings.corpus)
    model, tokenizer = checkpoint.load_model(), checkpoint.load_tokenizer()
    held = held_out_answers(settings, corpus, tokenizer, settings.eval_split, settings.context_length)
    found = rollouts(model, tokenizer, held.rows, settings, seed=settings.seed, bf16=settings.bf16)
    with atomic_folder(folder / "output", replace=True) as output:
        text = found.model_dump_json(indent=1, exclude={"kl"})
        (output / "rollouts.json").write_text(text, encoding="utf-8")
