"""Step type `train-answers`: a causal model learns the answers of texts, and only reads the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from warmstart.foundation.errors import UserError
from warmstart.foundation.progress import note
from warmstart.recipes.operations import operations
from warmstart.recipes.operations.answers import held_out_answers
from warmstart.recipes.runner import Runner
from warmstart.recipes.training_step import TrainingStep, leave


class TrainAnswersSettings(TrainingStep):
    """Train a causal model on the answers of texts: the loss of all other tokens does not count."""

    unbudgeted_epochs = 3.0
    marker: str = Field(default="\nA:", min_length=1)
    """What stands in front of an answer, which goes from the last one to the end of the text."""
    only: dict[str, list[str]] = {}
    """Learn from texts only whose metadata has one of these values, such as `{format: [chain]}`."""
    block_size: int = Field(default=256, ge=4)
    """Tokens of a text at most, and what each text counts as in budgets; longer texts are left out."""


@operations.register(
    "train-answers",
    settings=TrainAnswersSettings,
    title="Specializing Smaller Language Models towards Multi-Step Reasoning",
    arxiv="2301.12726",
    tags=("trains",),
)
def train_answers_step(settings: TrainAnswersSettings, folder: Path, runner: Runner) -> None:
    """Train on answers; the artifact holds the model and `training.json`, its curve.

    The loss is the mean over the answers' tokens, their end of text included: of the tokens themselves
    (`objective: causal`, the source's "match sample"), or of a teacher's distribution (`objective: {name:
    distillation, teacher: …, alpha: 0, beta: 1, top_k: 5}`, "match distribution"; from a teacher with another
    vocabulary with `alignment: warp`). The points of the curve
    are bits per byte of held-out answers, of all kinds also where `only` is given. FLOPs are those of whole
    blocks.

    The released code computes KL from probabilities with 1e-10 added, and of the teacher's top five as if
    there were no others; here all others are one class. Text has one end, not extra mass on it.
    """
    import warmstart.recipes.sources  # noqa: F401  named sources become known to `resolve`
    from warmstart.checkpoint import resolve
    from warmstart.corpus import open_corpus
    from warmstart.corpus.answers import answer_texts
    from warmstart.evaluation.answers import answer_scores
    from warmstart.training import train
    from warmstart.training.loop import make_objective

    source = resolve(settings.source)
    if source.task != "causal":
        raise UserError(f"answers are learned by causal models, and this is {source.task}", where=source.path)
    model, tokenizer = source.load_model(), source.load_tokenizer()
    corpus = open_corpus(settings.corpus)
    wanted = (d for d in corpus.documents("train") if _is_wanted(d.metadata, settings.only))
    texts = answer_texts(wanted, tokenizer, length=settings.block_size, marker=settings.marker)
    if texts.dropped:
        note(f"{texts.dropped:,} texts have no answer within {settings.block_size} tokens and are left out")
    held = held_out_answers(settings, corpus, tokenizer, settings.eval_split, settings.block_size)

    def evaluate(trained: Any) -> float:
        return answer_scores(trained, held.rows, held.num_bytes, bf16=settings.bf16).bits_per_byte

    plain = settings.loop()
    objective = make_objective(model, tokenizer, plain, **settings.parts(tokenizer, texts))
    outcome = train(model, tokenizer, texts, plain, folder / "run", evaluate=evaluate, objective=objective)
    leave(
        folder,
        "train-answers",
        settings,
        (model, tokenizer),
        outcome,
        parents=[source, *settings.teachers()],
        data={corpus.name: corpus.fingerprint},
        measured={"texts": len(texts)},
        points="bits per answer byte",
    )


def _is_wanted(metadata: dict[str, Any], only: dict[str, list[str]]) -> bool:
    return all(str(metadata.get(field)) in values for field, values in only.items())
