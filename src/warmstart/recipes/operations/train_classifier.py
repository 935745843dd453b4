"""Step type `train-classifier`: an encoder learns to label texts, from labels, a teacher, or both."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from warmstart.corpus.settings import CorpusSettings
from warmstart.foundation.errors import UserError
from warmstart.objectives._classes import ClassLossSettings
from warmstart.recipes.operations import operations
from warmstart.recipes.operations.classify import some_of
from warmstart.recipes.runner import Runner
from warmstart.recipes.training_step import TrainingStep, held_out_sample, leave

if TYPE_CHECKING:
    from warmstart.corpus.labelled import Labelled


class TrainClassifierSettings(TrainingStep):
    """Train a classifier of texts on an encoder. With a teacher it needs no labels."""

    unbudgeted_epochs = 3.0
    source: str = Field(min_length=1)
    """Encoder to train, with or without a head: folder, hub id, `name@revision`, named source or `${step}`.
    A head for other labels is left behind."""
    labelled: str
    """Labelled texts: a named set such as `bible/eng` or `trec`, or a file with the fields `text` and
    `label`. Its `valid` or `test` part is what evaluation points measure."""
    max_labelled: int | None = Field(default=None, gt=1)
    """Texts of its train part whose labels may be used, at most; chosen by hash."""
    teacher: str | None = None
    """Classifier of the same labels, in tokens of any kind; it reads each text once, before training."""
    transfer: Literal["labelled", "train", "corpus"] = "labelled"
    """What the teacher speaks about: the texts whose labels may be used; the whole train part of
    `labelled`; or the documents of `corpus`. Texts that are held out are left out."""
    max_transfer: int | None = Field(default=None, gt=0)
    """Texts of that at most, chosen by hash."""
    top_k: int | None = Field(default=None, ge=1)
    """Keep those k texts of each class that the teacher predicts of which it is most certain."""
    corpus: CorpusSettings | None = None  # type: ignore[assignment]
    """Texts without labels for `transfer: corpus`; otherwise not read."""
    divergence: Literal[
        "soft-cross-entropy", "forward-kl", "reverse-kl", "symmetric-kl", "jensen-shannon"
    ] = "soft-cross-entropy"
    """How the student is compared with the teacher."""
    alpha: float | None = Field(default=None, ge=0)
    """Weight of the labels: 0 with a teacher and 1 without one where not given."""
    beta: float = Field(default=1.0, ge=0)
    """Weight of the teacher."""
    temperature: float = Field(default=1.0, gt=0)
    """T, by which logits are divided in the comparison with the teacher."""
    mixing: float = Field(default=0.5, gt=0, lt=1)
    """Teacher's share in `symmetric-kl` and `jensen-shannon`."""
    block_size: int = Field(default=128, ge=4)
    """Tokens of a text that are read, and what each text counts as in budgets."""
    per_device_train_batch_size: int = Field(default=32, ge=1)
    """Texts per process and forward pass."""

    def weights(self) -> ClassLossSettings:
        """What is learned from."""
        usual = 1.0 if self.teacher is None else 0.0
        return ClassLossSettings(
            kind=self.divergence,
            alpha=usual if self.alpha is None else self.alpha,
            beta=self.beta,
            temperature=self.temperature,
            mixing=self.mixing,
        )


class _Texts(NamedTuple):
    texts: list[str]
    classes: np.ndarray
    taught: np.ndarray | None


@operations.register(
    "train-classifier",
    settings=TrainClassifierSettings,
    title="Well-Read Students Learn Better: On the Importance of Pre-training Compact Models",
    arxiv="1908.08962",
    tags=("trains",),
)
def train_classifier_step(settings: TrainClassifierSettings, folder: Path, runner: Runner) -> None:
    """Train a classifier of texts; the artifact holds it and `training.json`, its curve.

    `loss = alpha CE(label) + beta T^2 D(teacher, student)`, averaged over texts. The points of the curve are
    the share of held-out texts with a wrong answer. The settings of the sources:

    - Pre-trained Distillation (arXiv 1908.08962): `teacher`, soft cross-entropy, no labels, on unlabelled
      texts; before it the student learns masked words (a step `train`), after it labels if wanted.
    - SSLD (arXiv 2103.05959): `divergence: jensen-shannon`, no labels, a larger pool (`transfer`) of which
      `top_k` texts of each predicted class are kept, and long training. The source looks for held-out images
      among those of the pool by their local features; here held-out texts are those that are the same but for
      case and spaces.

    A budget in tokens counts `block_size` for each text. FLOPs are those of the student.
    """
    import warmstart.recipes.sources  # noqa: F401  named sources become known to `resolve`
    from warmstart.checkpoint import resolve
    from warmstart.checkpoint.classifier import open_classifier
    from warmstart.corpus.labelled import labelled, labelled_fingerprint
    from warmstart.objectives._classes import Classes
    from warmstart.objectives._numbered import numbered_texts
    from warmstart.training import train

    weights = _checked(settings)
    whole = labelled(settings.labelled, "train")
    labels = sorted(set(whole.labels))
    held = _held_out(settings, labelled(settings.labelled, settings.eval_split))
    source = resolve(settings.source)
    model, tokenizer = open_classifier(source, labels, seed=settings.seed), source.load_tokenizer()
    found = _texts(settings, whole, labels)
    data = {settings.labelled: labelled_fingerprint(settings.labelled)}
    if settings.transfer == "corpus":
        corpus = _corpus(settings)
        data[corpus.name] = corpus.fingerprint
    outcome = train(
        model,
        tokenizer,
        numbered_texts(found.texts, tokenizer, length=settings.block_size, classes=found.classes),
        settings.loop(),
        folder / "run",
        evaluate=_evaluate(settings, tokenizer, held, labels),
        objective=Classes(weights, tokenizer, taught=found.taught),
    )
    leave(
        folder,
        "train-classifier",
        settings,
        (model, tokenizer),
        outcome,
        parents=[source, *([("teacher", resolve(settings.teacher))] if settings.teacher else [])],
        data=data,
        measured={
            "texts": len(found.texts),
            "texts with a label in use": int((found.classes >= 0).sum()) if weights.alpha else 0,
        },
        points="error",
    )


def _checked(settings: TrainClassifierSettings) -> ClassLossSettings:
    """Refuse settings of which nothing could be learned, or that would be passed over."""
    weights, where = settings.weights(), "train-classifier"
    settings.refuse_objective("a classifier has", where=where)
    if settings.teacher is None:
        used = settings.model_dump(exclude_defaults=True).keys() & {"transfer", "max_transfer", "top_k"}
        if used:
            raise UserError(
                f"{min(used)} needs a teacher", where=where, fix="name a teacher, or leave it out"
            )
    if not weights.alpha and (settings.teacher is None or not weights.beta):
        raise UserError(
            "neither labels nor a teacher count", where=where, fix="set alpha, or a teacher and beta"
        )
    if settings.transfer == "corpus" and settings.corpus is None:
        raise UserError("transfer: corpus needs texts", where=where, fix="add corpus: …")
    return weights


def _corpus(settings: TrainClassifierSettings) -> Any:
    from warmstart.corpus import open_corpus

    assert settings.corpus is not None
    return open_corpus(settings.corpus)


def _held_out(settings: TrainClassifierSettings, part: Labelled) -> Labelled:
    """Texts of up to `eval_max_bytes` bytes, drawn by hash."""
    from warmstart.corpus import Document

    kept = set(held_out_sample((Document(text, "") for text in part.texts), settings.eval_max_bytes))
    pairs = [(text, label) for text, label in zip(*part, strict=True) if text in kept]
    return type(part)([text for text, _ in pairs], [label for _, label in pairs])


def _evaluate(
    settings: TrainClassifierSettings, tokenizer: Any, held: Labelled, labels: list[str]
) -> Callable[[Any], float]:
    """What evaluation points of training call: the share of held-out texts with a wrong answer."""
    from warmstart.evaluation.classifier import class_logits, error_rate

    classes = np.array([labels.index(label) for label in held.labels])
    read = partial(class_logits, max_length=settings.block_size, bf16=settings.bf16)
    return lambda model: error_rate(read(model, tokenizer, held.texts), classes)


def _texts(settings: TrainClassifierSettings, whole: Labelled, labels: list[str]) -> _Texts:
    """What is learned from: texts, their classes (-1 without one), and the teacher's logits.

    Where labels count, the texts that have one are always among them.
    """
    from warmstart.evaluation.classifier import most_certain

    known = some_of(whole, settings.max_labelled)
    if settings.teacher is None:
        return _Texts(known.texts, np.array([labels.index(label) for label in known.labels]), None)
    texts = _transfer(settings, whole, known)
    taught = _say(settings, texts, labels)
    if settings.top_k is not None:
        chosen = most_certain(taught, settings.top_k)
        texts, taught = [texts[i] for i in chosen], taught[chosen]
    class_of = {text: labels.index(label) for text, label in zip(*known, strict=True)}
    spoken_of = set(texts)
    missing = [text for text in class_of if text not in spoken_of] if settings.weights().alpha else []
    if missing:
        texts, taught = texts + missing, np.concatenate([taught, _say(settings, missing, labels)])
    return _Texts(texts, np.array([class_of.get(text, -1) for text in texts]), taught)


def _transfer(settings: TrainClassifierSettings, whole: Labelled, known: Labelled) -> list[str]:
    """Texts that the teacher speaks about, each once, without those that are held out."""
    from warmstart.corpus.labelled import labelled

    if settings.transfer == "corpus":
        pool = [document.text for document in _corpus(settings).documents("train")]
    else:
        pool = list(known.texts if settings.transfer == "labelled" else whole.texts)
    unseen = {
        _plain(text) for split in ("valid", "test") for text in labelled(settings.labelled, split).texts
    }
    pool = [text for text in dict.fromkeys(pool) if _plain(text) not in unseen]
    if not pool:
        raise UserError("no text is left for the teacher", where="train-classifier", fix="give more texts")
    return some_of(type(whole)(pool, pool), settings.max_transfer).texts


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _say(settings: TrainClassifierSettings, texts: list[str], labels: list[str]) -> np.ndarray:
    """The teacher's logits, in the student's order of labels."""
    from warmstart.checkpoint import resolve
    from warmstart.checkpoint.classifier import labels_of, open_classifier
    from warmstart.evaluation.classifier import class_logits

    teacher = resolve(str(settings.teacher))
    known = labels_of(teacher.config) or []
    if sorted(known) != labels:
        raise UserError(
            f"the teacher knows the labels {', '.join(known) or '(none)'}, and the texts have "
            f"{', '.join(labels)}",
            where=settings.teacher,
            fix="train a teacher on these labels with `train-classifier`",
        )
    logits = class_logits(
        open_classifier(teacher),
        teacher.load_tokenizer(),
        texts,
        max_length=settings.block_size,
        bf16=settings.bf16,
    )
    return logits[:, [known.index(label) for label in labels]]
