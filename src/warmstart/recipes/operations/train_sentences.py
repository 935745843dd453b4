"""Step type `train-sentences`: an encoder learns the sentence vectors of another one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from warmstart.corpus.settings import CorpusSettings
from warmstart.foundation.errors import UserError
from warmstart.objectives._sentences import SentenceLossSettings
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner
from warmstart.recipes.training_step import TrainingStep, held_out_sample, leave

if TYPE_CHECKING:
    from warmstart.checkpoint import Checkpoint
    from warmstart.corpus.splitting import Split

_HELD_OUT = 1000
"""Held-out sentences at most: their pairs grow with the square."""


class TrainSentencesSettings(TrainingStep, SentenceLossSettings):
    """Train an encoder so that its sentence vectors are those of a teacher."""

    unbudgeted_epochs = 1.0
    teacher: str = Field(min_length=1)
    """Encoder whose vectors are learned; it reads each sentence once, before training."""
    corpus: CorpusSettings | None = None  # type: ignore[assignment]
    """Sentences that both read, one per document; not needed with `parallel`."""
    parallel: str | None = None
    """Sentence pairs instead: the teacher reads the first text, the student the second."""
    max_sentences: int | None = Field(default=None, gt=0)
    """Sentences or pairs of the train part at most, chosen by hash."""
    block_size: int = Field(default=64, ge=4)
    """Tokens of a sentence that are read, and what each sentence counts as in budgets."""
    per_device_train_batch_size: int = Field(default=64, ge=1)
    """Sentences per process and forward pass."""


@operations.register(
    "train-sentences",
    settings=TrainSentencesSettings,
    title="Making Monolingual Sentence Embeddings Multilingual using Knowledge Distillation",
    arxiv="2004.09813",
    tags=("trains",),
)
def train_sentences_step(settings: TrainSentencesSettings, folder: Path, runner: Runner) -> None:
    """Distil mean-pooled sentence vectors; the artifact holds the student and `training.json`, its curve.

    The points of the curve are `1 - rho`: rho is Spearman's correlation of the student's and the teacher's
    cosines over all pairs of held-out sentences, of which at most 1,000 are read. See
    [`sentence_loss`][warmstart.objectives._sentences.sentence_loss] for what is learned and where it differs
    from the source, in which the student also reads the original text: with `parallel` it reads translations
    alone. Only the body learns; a head stays as it is. FLOPs are those of the student.
    """
    import warmstart.recipes.sources  # noqa: F401  named sources become known to `resolve`
    from warmstart.checkpoint import resolve
    from warmstart.corpus import open_corpus, open_pairs
    from warmstart.objectives._numbered import numbered_texts
    from warmstart.objectives._sentences import Sentences
    from warmstart.training import train

    settings.refuse_objective("sentence vectors have", where="train-sentences")
    source, teacher = resolve(settings.source), resolve(settings.teacher)
    model, tokenizer = _student(source, teacher, settings), source.load_tokenizer()
    _, texts = _sentences(settings, "train", settings.max_sentences)
    taught = _taught(settings, runner)
    if settings.parallel is not None:
        data = {settings.parallel: open_pairs(settings.parallel).fingerprint}
    else:
        assert settings.corpus is not None
        corpus = open_corpus(settings.corpus)
        data = {corpus.name: corpus.fingerprint}
    objective = Sentences(SentenceLossSettings(match=settings.match), tokenizer, taught=taught)
    if settings.match == "similarities":  # which pairs there are depends on it
        objective.fingerprint = f"{objective.fingerprint}-{settings.per_device_train_batch_size}"
    outcome = train(
        model.base_model,
        tokenizer,
        numbered_texts(texts, tokenizer, length=settings.block_size),
        settings.loop(),
        folder / "run",
        evaluate=_evaluate(settings, tokenizer),
        objective=objective,
    )
    leave(
        folder,
        "train-sentences",
        settings,
        (model, tokenizer),
        outcome,
        parents=[source, ("teacher", teacher)],
        data=data,
        measured={"sentences": len(texts)},
        points="rank disagreement with the teacher",
    )


def _student(source: Checkpoint, teacher: Checkpoint, settings: TrainSentencesSettings) -> Any:
    """The model as it is stored: an encoder without a head gets none."""
    where = "train-sentences"
    for checkpoint in (source, teacher):
        if checkpoint.task != "masked":
            raise UserError(
                f"sentence vectors are those of encoders, and this is {checkpoint.task}",
                where=checkpoint.path,
            )
    model: Any = source.load_model(as_stored=True)
    wide, width = teacher.config.get("hidden_size"), model.config.hidden_size
    if settings.match == "vectors" and wide != width:
        raise UserError(
            f"the student is {width} wide and the teacher {wide}", where=where, fix="set match: similarities"
        )
    return model


def _sentences(
    settings: TrainSentencesSettings, split: Split, limit: int | None = None
) -> tuple[list[str], list[str]]:
    """What the teacher reads, and what the student reads."""
    from warmstart.recipes.sentence_vectors import read_sentences

    return read_sentences(settings.parallel, settings.corpus, split, limit, where="train-sentences")


def _taught(settings: TrainSentencesSettings, runner: Runner) -> np.ndarray:
    """The teacher's vectors of the train part, made once for all students of it."""
    given = settings.model_dump(
        mode="json", exclude_unset=True, include={"parallel", "corpus", "max_sentences", "bf16"}
    )
    given |= {"source": settings.teacher, "max_length": settings.block_size}
    vectors: np.ndarray = np.load(runner.step("embed", given, name="vectors of the teacher") / "vectors.npy")
    return vectors


def _evaluate(settings: TrainSentencesSettings, tokenizer: Any) -> Callable[[Any], float]:
    """What evaluation points call: one minus the rank correlation with the teacher on held-out sentences."""
    from warmstart.corpus import Document
    from warmstart.evaluation.retrieval import sentence_vectors
    from warmstart.evaluation.similarity import agreement
    from warmstart.recipes.sentence_vectors import vectors_of

    theirs, ours = _sentences(settings, settings.eval_split)
    partner = dict(zip(ours, theirs, strict=True))
    sample = held_out_sample((Document(text, "") for text in partner), settings.eval_max_bytes)
    drawn = [text for text in sample if text in partner][:_HELD_OUT]  # the last one may be cut
    shared: dict[str, Any] = {"max_length": settings.block_size, "bf16": settings.bf16}
    goal = vectors_of(settings.teacher, [partner[text] for text in drawn], **shared)
    return lambda model: 1 - agreement(sentence_vectors(model, tokenizer, drawn, **shared), goal)
