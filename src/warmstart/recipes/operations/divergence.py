"""Step type `divergence`: how far is a model with new tokens from the one that reads their old pieces?"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field

from warmstart.corpus.settings import CorpusSettings
from warmstart.foundation.errors import UserError
from warmstart.foundation.files import atomic_folder
from warmstart.foundation.settings import Settings
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner


class DivergenceSettings(Settings):
    """Divergence of a checkpoint with new tokens from the checkpoint with the old vocabulary."""

    source: str = Field(min_length=1)
    """Checkpoint with the new vocabulary: folder, hub id, named source or `${step}`."""
    reference: str = Field(min_length=1)
    """Checkpoint with the old vocabulary."""
    corpus: CorpusSettings
    """Text in which the new tokens occur."""
    eval_split: Literal["train", "valid", "test", "all"] = "test"
    """Part of the corpus that is read."""
    eval_max_bytes: int | None = Field(default=131072, gt=0)
    """UTF-8 bytes to read at most, drawn by hash from the whole part; null reads everything."""
    context_length: int = Field(default=512, gt=1)
    """Tokens that the models see at once, limited by their own maxima."""
    alignment: Literal["auto", "merge", "offsets"] = "offsets"
    """How text is cut twice, as in `train-rows`; `offsets` is what the new tokenizer really does."""
    bf16: bool = False
    """Whether matrix products run in bfloat16."""


@operations.register("divergence", settings=DivergenceSettings, tags=("measures",))
def divergence_step(settings: DivergenceSettings, folder: Path, runner: Runner) -> None:
    """Measure a model with new tokens against its reference, into `divergence.json`.

    `kl_after_new` and `kl_elsewhere`: mean KL of next-token distributions in nats, right after new tokens and
    at other common places; `new_accuracy` and `reference_accuracy`: how often the new token of the text, and
    all its pieces, are predicted; `new_probability` and `new_share`: mass that new tokens get and should get.
    """
    import warmstart.recipes.sources  # noqa: F401  named sources become known to `resolve`
    from warmstart.checkpoint import resolve
    from warmstart.corpus import open_corpus
    from warmstart.recipes.operations.train_rows import first_ids
    from warmstart.recipes.training_step import held_out_sample
    from warmstart.vocabulary.aligning import align, fold_ids
    from warmstart.vocabulary.divergence import divergence
    from warmstart.vocabulary.map import VocabMap

    source, reference = resolve(settings.source), resolve(settings.reference)
    if source.task != "causal" or reference.task != "causal":
        raise UserError("divergence is measured between causal models", where=settings.source)
    corpus = open_corpus(settings.corpus)
    documents = corpus.documents(settings.eval_split)
    if settings.eval_max_bytes is None:
        texts: Iterable[str] = (document.text for document in documents)
    else:
        texts = held_out_sample(documents, settings.eval_max_bytes)
    old, tokenizer = reference.load_tokenizer(), source.load_tokenizer()
    vocab = VocabMap.build(old, tokenizer, source_size=reference.rows, target_size=source.rows)
    if not len(vocab.new):
        raise UserError("the source has no token that the reference lacks", where=settings.source)
    found = divergence(
        source.load_model(),
        reference.load_model(),
        align(vocab, old, tokenizer, vocab.new, settings.alignment),
        texts,
        fold=fold_ids(vocab),
        new=vocab.new,
        context_length=settings.context_length,
        start=first_ids(old, tokenizer),
        bf16=settings.bf16,
    )
    with atomic_folder(folder / "output", replace=True) as output:
        (output / "divergence.json").write_text(found.model_dump_json(indent=1), encoding="utf-8")
