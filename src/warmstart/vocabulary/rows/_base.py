"""What a row initialiser gets, what it returns, and the registry in which it stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from warmstart.foundation.errors import UserError
from warmstart.foundation.registry import Registry
from warmstart.vocabulary.mix import RowMix

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from warmstart.corpus import Corpus
    from warmstart.vocabulary.map import VocabMap

_NEEDS = {
    "corpus": "a corpus of the target",
    "source_corpus": "a source corpus",
    "dictionary": "a dictionary of word pairs",
    "parallel": "parallel sentences",
}


@dataclass
class RowContext:
    """Everything a row initialiser may look at.

    Attributes:
        vocab: How the two vocabularies relate.
        source_tokenizer: Tokenizer of the source checkpoint.
        target_tokenizer: Tokenizer of the new checkpoint.
        rows: Source input rows `(V_source, d)`, float32 (float64 for a float64 source).
        head_rows: Source head rows `(V_source, d)`, or None when tied to the input rows.
        corpus: Text of the target, or None when the person gave none.
        source_corpus: Text of the source, or None.
        dictionary: Word pairs (source word, target word), or None.
        parallel: Sentence pairs (source sentence, target sentence), or None.
        rng: Random generator of this call; use it and nothing else.
        seed: The seed it was made from, for libraries that want a number.
        config: The source's `config.json`.
        copy_overlap: Whether overlapping tokens are copied afterwards; a method then need not fill them.
        aux: Cache of auxiliary spaces, shared by the arms of a comparison.
    """

    vocab: VocabMap
    source_tokenizer: PreTrainedTokenizerFast
    target_tokenizer: PreTrainedTokenizerFast
    rows: np.ndarray
    head_rows: np.ndarray | None = None
    corpus: Corpus | None = None
    source_corpus: Corpus | None = None
    dictionary: list[tuple[str, str]] | None = None
    parallel: list[tuple[str, str]] | None = None
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    seed: int = 0
    config: dict[str, Any] = field(default_factory=dict)
    copy_overlap: bool = True
    aux: dict[Any, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the mix, `(V_target, V_source)`."""
        return self.vocab.target_size, self.rows.shape[0]

    @property
    def wanted(self) -> np.ndarray:
        """Target ids that the method must fill: new tokens, and overlapping ones unless they are copied."""
        return self.vocab.new if self.copy_overlap else self.vocab.text_ids

    def need(self, name: str, method: str) -> Any:
        """The attribute `name`, or a `UserError` that says which setting the method lacks."""
        value = getattr(self, name)
        if value is None:
            raise UserError(
                f"the initialiser {method!r} needs {_NEEDS.get(name, name)}",
                where="transplant",
                fix=f"add {name}: … to the settings",
            )
        return value


Initialiser = Callable[[RowContext, Any], RowMix]
"""`(context, settings) -> RowMix` of shape `(V_target, V_source)`; special rows are set afterwards."""

initialisers: Registry[Initialiser] = Registry("initialiser", "warmstart.vocabulary.rows")
"""All row initialisers. The tag `all-rows` says that overlapping tokens are not copied unless asked for."""
