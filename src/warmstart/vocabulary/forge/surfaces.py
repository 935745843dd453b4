"""How a tokenizer's model sees a given text: after the normaliser, between the cuts of the pre-tokeniser."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.pieces import sentinels
from warmstart.vocabulary.settings import Kind
from warmstart.vocabulary.tokens import splits_words

SHOWN = 5  # strings named in a message


def written_all(
    backend: Any, kind: Kind, prefix: str, texts: Iterable[str], form: str, where: object = None
) -> list[str]:
    """The pieces that stand for texts, each once, in order.

    Args:
        backend: `tokenizers.Tokenizer`.
        kind: Its model.
        prefix: Mark of continuing pieces in WordPiece.
        texts: Words or phrases.
        form: `word`, `literal` or `both`, see `ExtendSettings.form`.
        where: Place to name in errors.

    Raises:
        UserError: Naming the texts of which the model never sees the whole, with the reason.
    """
    found: dict[str, None] = {}
    lost, cut = [], []
    for text in texts:
        for surface in _surfaces(text, form):
            piece = written(backend, surface)
            if piece is None:
                cut.append(text)
            elif not piece or ((form != "literal" or text.strip()) and not piece.strip("▁Ġ ")):
                lost.append(text)
            else:
                inside = kind == "wordpiece" and not surface.startswith(" ") and not splits_words(piece[0])
                found[prefix + piece if inside else piece] = None
    if lost:
        raise UserError(
            f"the normaliser of the tokenizer leaves nothing of {named(lost)}", where=where, fix="remove them"
        )
    if cut:
        raise UserError(
            f"the tokenizer cuts text before it looks for tokens, and within {named(cut)}; a token there "
            "would never be produced",
            where=where,
            fix="give single words, or take a tokenizer that was trained with supertokens",
        )
    return list(found)


def written(backend: Any, surface: str) -> str | None:
    """The string by which the model sees `surface` in running text; None where it sees it in parts.

    The text stands behind a sentinel, whose part is taken off; begin it with a space to start a word.
    """
    for sentinel in sentinels(surface):
        head = "".join(_words(backend, sentinel))
        words = _words(backend, sentinel + surface)
        seen = "".join(words)
        if seen.startswith(head):
            rest = seen[len(head) :]
            return rest if not rest or len(words[-1]) >= len(rest) else None
    return None


def _words(backend: Any, text: str) -> list[str]:
    seen = backend.normalizer.normalize_str(text) if backend.normalizer else text
    if backend.pre_tokenizer is None:
        return [seen]
    return [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(seen)]


def _surfaces(text: str, form: str) -> Iterator[str]:
    if form in ("word", "both"):
        yield " " + text.strip(" ")
    if form in ("literal", "both"):
        yield text.lstrip(" ") if form == "both" else text


def named(texts: list[str]) -> str:
    """The first few of them, for a message."""
    unique = list(dict.fromkeys(texts))
    more = f" and {len(unique) - SHOWN} more" if len(unique) > SHOWN else ""
    return ", ".join(repr(text) for text in unique[:SHOWN]) + more
