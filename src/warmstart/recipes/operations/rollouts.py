"""Step type `rollouts`: what a causal model's own answers to held-out prompts are worth."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from warmstart.evaluation.rollouts import AnsweringSettings
from warmstart.foundation.files import atomic_folder
from warmstart.recipes.operations import operations
from warmstart.recipes.operations.answers import AnswersSettings, held_out_answers
from warmstart.recipes.runner import Runner


class RolloutsSettings(AnswersSettings, AnsweringSettings):
    """Answers that a causal model writes itself."""

    seed: int = Field(default=0, ge=0)
    """Seed of the sampling; the same one draws the same random numbers for each prompt."""


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
