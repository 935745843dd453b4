"""What the steps share that search over the sub-networks of a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from warmstart.corpus.settings import CorpusSettings
from warmstart.shape.search.settings import SearchSettings

if TYPE_CHECKING:
    from warmstart.checkpoint import Checkpoint
    from warmstart.shape.search.judges import Judge
    from warmstart.shape.search.subnetworks import Networks


class SearchingStep(SearchSettings):
    """Settings of any step that searches."""

    source: str = Field(min_length=1)
    """Checkpoint whose sub-networks are meant: folder, hub id, `name@revision`, named source or `${step}`."""
    corpus: CorpusSettings
    """Text by which parts are judged (`train`) and sub-networks measured (`eval_split`): by bits per byte or,
    of encoders without a head, by the order of similarities between its documents."""
    eval_split: Literal["valid", "test"] = "valid"
    """Part of the corpus on which sub-networks are measured."""
    eval_max_bytes: int = Field(default=32768, gt=0)
    """UTF-8 bytes of it that each reads, drawn by hash."""
    calibration_tokens: int = Field(default=65536, ge=1)
    """Tokens of the train split by which parts are judged, once for the whole search, drawn by the seed."""
    block_size: int = Field(default=512, ge=2)
    """Tokens that a model sees at once, at most; it may allow fewer."""
    per_device_calibration_batch_size: int = Field(default=8, ge=1)
    """Blocks that are read at a time."""
    trust_remote_code: bool = False
    """Run code that the checkpoint brings along."""


def open_networks(settings: SearchingStep, source: Checkpoint) -> Networks:
    """The sub-networks of a step's checkpoint, ready to be measured."""
    from warmstart.corpus import open_corpus
    from warmstart.recipes.calibration_text import calibration_of
    from warmstart.recipes.training_step import held_out_sample
    from warmstart.shape.search.judges import BitsPerByte, Disagreement
    from warmstart.shape.search.masked_networks import MaskedNetworks
    from warmstart.shape.search.subnetworks import SubNetworks
    from warmstart.shape.stored import Stored

    stored, corpus = Stored(source), open_corpus(settings.corpus)
    calibration = calibration_of(settings, source, corpus)
    texts = held_out_sample(corpus.documents(settings.eval_split), settings.eval_max_bytes)
    given = source.load_tokenizer(), texts
    options: dict[str, Any] = {"context_length": settings.block_size, "bf16": settings.bf16}
    if source.base_only:
        judge: Judge = Disagreement(*given, source=calibration.model, **options)
    else:
        judge = BitsPerByte(*given, task=source.task, **options)
    kind = SubNetworks if settings.masks is None else MaskedNetworks
    return kind(stored, calibration, settings, judge)
