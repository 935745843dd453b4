"""Step type `train-rows`: train the rows of new tokens only, by a model that knows the old ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from warmstart.corpus.settings import CorpusSettings
from warmstart.foundation.errors import UserError
from warmstart.foundation.progress import note
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner
from warmstart.recipes.training_step import RowTrainingStep, held_out_bpb, held_out_sample, leave

if TYPE_CHECKING:
    from warmstart.vocabulary.aligning import Alignment
    from warmstart.vocabulary.map import VocabMap
    from warmstart.vocabulary.snippets import Snippets


class TrainRowsSettings(RowTrainingStep):
    """Train the rows of new tokens on short texts in which they occur; every other row stays bit for bit."""

    unbudgeted_epochs = 1.0
    source: str = Field(min_length=1)
    """Checkpoint with the new vocabulary, its new rows initialised: folder, hub id or `${step}`."""
    reference: str = Field(min_length=1)
    """Checkpoint with the old vocabulary: it says which tokens are new and of which pieces they are made, and
    it teaches."""
    corpus: CorpusSettings
    """Text in which the new tokens occur."""
    objective: str | dict[str, Any] = "token-distillation"
    """How rows learn: `token-distillation` (hidden states as after the old pieces), `vocabulary-kl` (the old
    next-token distribution), or `causal` (next tokens of the new cut)."""
    trainable: Literal["all", "embeddings", "2x2ls"] | list[str] | dict[str, float] = "embeddings"
    """What learns besides, as in `train`; of the vocabulary matrices always the rows of new tokens alone."""
    alignment: Literal["auto", "merge", "offsets"] = "auto"
    """How text is cut twice. `merge`: in the old cut, runs that spell a new token are replaced by it (the
    longest first), which needs a vocabulary that contains the old one. `offsets`: both tokenizers cut the
    text, for any two vocabularies. `auto`: merge where it can be done."""
    snippets_per_token: int = Field(default=100, ge=1)
    """Texts for each new token, at most; the first ones of the corpus are taken."""
    min_snippets: int = Field(default=10, ge=1)
    """A new token with fewer is rare."""
    rare: Literal["generate", "train", "keep"] = "generate"
    """Rare tokens: have the reference write texts behind their pieces until there are `min_snippets`; train
    them on what there is; or keep their rows as they are. A row without any text stays in each case."""
    block_size: int = Field(default=50, ge=4)
    """Most tokens of a snippet in either cut."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Peak learning rate; small models bear more."""
    context_length: int = Field(default=512, gt=1)
    """Tokens that the model sees at once when it is measured, limited by its own maximum."""
    evaluation: Literal["bits-per-byte", "divergence"] = "bits-per-byte"
    """What evaluation points measure on held-out text: bits per byte in the new cut, or the mean divergence
    from the reference right after new tokens, in nats (see the step `divergence`)."""


@operations.register("train-rows", settings=TrainRowsSettings, tags=("trains",))
def train_rows_step(settings: TrainRowsSettings, folder: Path, runner: Runner) -> None:
    """Train the rows of new tokens only; the artifact holds the model and `training.json`, its curve."""
    import warmstart.recipes.sources  # noqa: F401  named sources become known to `resolve`
    from warmstart.checkpoint import resolve
    from warmstart.corpus import open_corpus
    from warmstart.training import train
    from warmstart.training.loop import make_objective
    from warmstart.vocabulary.aligning import align, fold_ids
    from warmstart.vocabulary.map import VocabMap

    source, reference = resolve(settings.source), resolve(settings.reference)
    model, tokenizer = source.load_model(), source.load_tokenizer()
    teacher, old = reference.load_model(), reference.load_tokenizer()
    vocab = VocabMap.build(old, tokenizer, source_size=reference.rows, target_size=source.rows)
    if not len(vocab.new):
        raise UserError("the source has no token that the reference lacks", where=settings.source)
    plain = settings.loop()
    objective = make_objective(model, tokenizer, plain, teacher=teacher, fold=fold_ids(vocab))
    corpus = open_corpus(settings.corpus)
    alignment = align(vocab, old, tokenizer, vocab.new, settings.alignment)
    ids = first_ids(old, tokenizer)
    texts = collect(settings, corpus, alignment, vocab, teacher, ids)
    counts = texts.counts(vocab.new)
    fewest = min(settings.min_snippets, settings.snippets_per_token) if settings.rare == "keep" else 1
    rows = vocab.new[counts >= fewest]
    if not len(rows):
        raise UserError(
            f"no new token has {fewest} snippets", where=corpus.name, fix="give more text, or rare: generate"
        )
    held_out = held_out_sample(corpus.documents(settings.eval_split), settings.eval_max_bytes)

    evaluate: Callable[[Any], float]
    if settings.evaluation == "divergence":
        evaluate = partial(kl_after_new, teacher, alignment, held_out, vocab, settings, ids)
    else:
        evaluate = held_out_bpb(tokenizer, held_out, source.task, settings.context_length, settings.bf16)
    outcome = train(
        model,
        tokenizer,
        texts if objective.parallel else texts.target(),
        plain,
        folder / "run",
        evaluate=evaluate if held_out else None,
        rows=rows,
        objective=objective,
    )
    measured = {
        "new tokens": len(vocab.new),
        "rows trained": len(rows),
        "rows kept for want of text": len(vocab.new) - len(rows),
        "snippets": len(texts),
    }
    leave(
        folder,
        "train-rows",
        settings,
        (model, tokenizer),
        outcome,
        parents=[source, reference],
        data={corpus.name: corpus.fingerprint},
        measured=measured,
        points=settings.evaluation.replace("-", " "),
    )


def first_ids(old: Any, new: Any) -> tuple[int, int] | None:
    """Beginning-of-text ids (old, new) where both tokenizers put one before a text, else None."""
    found = [tokenizer.bos_token_id for tokenizer in (old, new)]
    if any(index is None or t("a")["input_ids"][:1] != [index] for t, index in zip((old, new), found)):
        return None
    return int(found[0]), int(found[1])


def kl_after_new(
    teacher: Any,
    alignment: Alignment,
    texts: list[str],
    vocab: VocabMap,
    settings: TrainRowsSettings,
    start: tuple[int, int] | None,
    model: Any,
) -> float:
    """What evaluation points of training call for `evaluation: divergence`."""
    from warmstart.vocabulary.aligning import fold_ids
    from warmstart.vocabulary.divergence import divergence

    found = divergence(
        model,
        teacher,
        alignment,
        texts,
        fold=fold_ids(vocab),
        new=vocab.new,
        context_length=settings.context_length,
        start=start,
        bf16=settings.bf16,
    )
    return found.kl_after_new


def collect(
    settings: TrainRowsSettings,
    corpus: Any,
    alignment: Alignment,
    vocab: VocabMap,
    teacher: Any,
    start: tuple[int, int] | None,
) -> Snippets:
    """Snippets from the corpus, and for rare tokens, where asked for, from the reference itself."""
    from warmstart.vocabulary.snippets import mine_snippets
    from warmstart.vocabulary.written_snippets import sample_snippets

    length = settings.block_size
    mined = mine_snippets(
        corpus, alignment, vocab.new, per_token=settings.snippets_per_token, length=length, start=start
    )
    counts = mined.counts(vocab.new)
    wanted = min(settings.min_snippets, settings.snippets_per_token)
    rare = counts < wanted
    if not rare.any():
        return mined
    fate = {"generate": "get generated ones", "train": "learn from these", "keep": "keep their rows"}
    note(f"{rare.sum():,} of {len(vocab.new):,} new tokens have fewer than {wanted} snippets: they "
         f"{fate[settings.rare]}")  # fmt: skip
    if settings.rare != "generate":
        return mined
    missing = {int(i): int(wanted - n) for i, n in zip(vocab.new[rare], counts[rare])}
    written = sample_snippets(
        teacher, vocab, alignment, missing, length=length, start=start, seed=settings.seed
    )
    found = mined.plus(written)
    without = int(np.sum(found.counts(vocab.new) == 0))
    if without:
        note(f"{without:,} new tokens have no snippet at all; their rows stay as they are")
    return found
