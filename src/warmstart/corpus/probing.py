"""What probes of token vectors are asked: the kind of a Python token, the language of a word."""

from __future__ import annotations

import hashlib
import io
import keyword
import tokenize
from collections.abc import Iterator

import regex

from warmstart.corpus.labelled import Labelled

_WORD = regex.compile(r"[\p{L}\p{M}]+")
_KINDS = {
    tokenize.NAME: "name",
    tokenize.OP: "operator",
    tokenize.NUMBER: "number",
    tokenize.STRING: "string",
}
_READ = 100_000
"""Tokens read at most: a small part of the standard library, drawn by module."""


def python_tokens() -> Labelled:
    """Tokens of the standard library's code with their kind as `tokenize` tells it, in reading order.

    Kinds are `name`, `keyword` (a name that the language keeps for itself), `operator`, `number` and
    `string`; layout (line ends, indentation) is left out. A token that stands behind a space begins with one.
    Modules come in the order of their hash.
    """
    from warmstart.corpus.corpus import open_corpus
    from warmstart.corpus.settings import CorpusSettings

    modules = list(open_corpus(CorpusSettings(path="python-stdlib/code")).documents("all"))
    modules.sort(key=lambda module: hashlib.blake2b(module.id.encode()).digest())
    texts: list[str] = []
    labels: list[str] = []
    for module in modules:
        for text, kind in tokens_of(module.text):
            texts.append(text)
            labels.append(kind)
        if len(texts) >= _READ:
            break
    return Labelled(texts[:_READ], labels[:_READ])


def tokens_of(code: str) -> Iterator[tuple[str, str]]:
    """Text and kind of each token of a Python source; nothing more after a place that cannot be read."""
    try:
        for token in tokenize.generate_tokens(io.StringIO(code).readline):
            kind = _KINDS.get(token.type)
            if kind is None and tokenize.tok_name[token.type].startswith("FSTRING"):  # from Python 3.12 on
                kind = "string"
            if kind is not None and token.string:
                before = token.line[: token.start[1]]
                kind = "keyword" if keyword.iskeyword(token.string) else kind
                yield (" " if before[-1:].isspace() else "") + token.string, kind
    except (tokenize.TokenError, IndentationError, SyntaxError):
        return


def words_of(given: Labelled) -> Labelled:
    """Different words of labelled texts, each behind a space, with the label of the texts that it stands in.

    A word is a run of letters, in lower case. Words that stand under several labels are left out, for their
    label cannot be known; so are words that occur once.
    """
    seen: dict[str, tuple[str, int]] = {}
    for text, label in zip(given.texts, given.labels, strict=True):
        for word in _WORD.findall(text.lower()):
            known, count = seen.get(word, (label, 0))
            seen[word] = (known if known == label else "", count + 1)
    kept = [(f" {word}", label) for word, (label, count) in seen.items() if label and count > 1]
    return Labelled([word for word, _ in kept], [label for _, label in kept])
