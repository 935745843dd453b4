"""The auxiliary tokenizer of an extension: what a tokenizer of the same make learns from the new text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from warmstart.vocabulary.forge.merges import Merge
from warmstart.vocabulary.settings import Kind, TokenizerSettings
from warmstart.vocabulary.settings_forge import ExtendSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

COVERAGE = 0.9995
"""Share of a text's characters that `wordpiece` must have before it gets longer pieces."""


@dataclass(frozen=True)
class Auxiliary:
    """What a tokenizer that was trained on the new text knows.

    Attributes:
        pieces: Its pieces, the most wanted first.
        merges: Its merges, in order; only of `bpe`.
        scores: Log-probability per piece; only of `unigram`.
    """

    pieces: list[str]
    merges: list[Merge]
    scores: dict[str, float]


def train_auxiliary(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], settings: ExtendSettings, kind: Kind
) -> Auxiliary:
    """What a tokenizer of the same make learns from the text, without the tokens that stand for no text."""
    from warmstart.vocabulary.forge import TokenizerForge
    from warmstart.vocabulary.forge.state import changeable, strings

    size = max(settings.auxiliary_size, 2 * (settings.count or 0))
    make = TokenizerSettings(corpus=settings.corpus, vocab_size=size, like=settings.source)
    trained = TokenizerForge(make, tokenizer).train(texts)
    _, state = changeable(trained)
    beside = {token["content"] for token in state["added_tokens"]}
    vocab = strings(state)
    pieces = [piece for piece in sorted(vocab, key=vocab.__getitem__) if piece not in beside]
    if kind == "unigram":
        return Auxiliary(pieces, [], dict(state["model"]["vocab"]))
    return Auxiliary(pieces, state["model"].get("merges", []), {})


def in_order(pieces: Sequence[str], words: Counter[str], kind: Kind, prefix: str = "##") -> list[str]:
    """Candidates, the most wanted first.

    The library's trainers put the characters of a text first, in the order of their code points, so that a
    few emoji would use up the room. Here `bpe` has them last, like SentencePiece (those of which a piece is
    made come with it). `wordpiece`, in which a missing character makes the word unknown, has those first that
    make up COVERAGE of the text. Both have them in the order of their frequency. `unigram` pieces are ordered
    by their score.
    """
    if kind == "unigram":
        return list(pieces)
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    characters = {piece: counts[piece[-1]] for piece in pieces if len(piece.removeprefix(prefix)) == 1}
    ordered = sorted(characters, key=lambda piece: -characters[piece])
    longer = [piece for piece in pieces if piece not in characters]
    if kind == "bpe":
        return [*longer, *ordered]
    total, seen = sum(characters.values()), 0
    common = []
    for piece in ordered:
        if seen >= COVERAGE * total:
            break
        seen += characters[piece]
        common.append(piece)
    return [*common, *longer, *ordered[len(common) :]]
