"""Removing the tokens that a text does not use, so that their rows can go.

The cut of the text does not change (with `min_uses: 1`, and but for words that WordPiece did not know): the
best path of Unigram and the longest match of WordPiece consist of tokens that stay; of BPE all merges stay
that lead to a token that stays, with the tokens in between, even where these are never the end result.

Ids are numbered anew without gaps, in their old order. Which old id a new one was follows from the two
tokenizers ([`VocabMap`][warmstart.vocabulary.map.VocabMap]: its overlap and its roles cover every token that
is left), and `warmstart transplant` copies the rows accordingly.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmstart.foundation.errors import UserError, nearest
from warmstart.foundation.progress import note
from warmstart.vocabulary.forge.change import ChangeReport, compare
from warmstart.vocabulary.forge.merges import Merges
from warmstart.vocabulary.forge.report import token_counts
from warmstart.vocabulary.forge.saving import REPORT_BYTES, held_out, write
from warmstart.vocabulary.forge.skeleton import fill_template
from warmstart.vocabulary.forge.state import changeable, opened, strings
from warmstart.vocabulary.settings_forge import DropSettings
from warmstart.vocabulary.tokens import byte_alphabet, style_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


@dataclass(frozen=True)
class Reduction:
    """A tokenizer with fewer tokens.

    Attributes:
        tokenizer: The smaller tokenizer.
        removed: Tokens that it no longer has, in the order of their old ids.
        parts: Tokens that the text does not use and other tokens are made of.
    """

    tokenizer: PreTrainedTokenizerFast
    removed: list[str]
    parts: list[str]


def drop(settings: DropSettings, out: Path, *, replace: bool = False) -> ChangeReport:
    """Remove unused tokens and save the rest as a folder for `AutoTokenizer.from_pretrained`.

    Args:
        settings: Tokenizer, text, and what stays in any case.
        out: Folder to create.
        replace: Whether an existing folder may be replaced.

    Returns:
        What the change does to held-out text and, where given, to other text; also in `warmstart.json`.

    Raises:
        UserError: For unusable input.
    """
    from warmstart.checkpoint import Lineage
    from warmstart.corpus import open_corpus
    from warmstart.evaluation.bits import limited
    from warmstart.vocabulary.opening import open_tokenizer
    from warmstart.vocabulary.transplant import tokenizer_digest

    tokenizer = open_tokenizer(settings.source, trust_remote_code=settings.trust_remote_code)
    new = open_corpus(settings.corpus)
    old = open_corpus(settings.source_corpus) if settings.source_corpus else None
    made = drop_unused(tokenizer, limited(new.texts("train"), settings.max_bytes), settings)
    if not made.removed:
        note("the text uses every token that could be removed; the tokenizer stays as it is")
    report = compare(
        tokenizer,
        made.tokenizer,
        new_text=held_out(new),
        old_text=held_out(old) if old else None,
        max_bytes=REPORT_BYTES,
    )
    data = {c.name: c.fingerprint for c in (new, old) if c} | {"tokenizer": tokenizer_digest(tokenizer)}
    measured = {"kept_as_parts": len(made.parts), **report.summary()}
    lineage = Lineage.of("drop", settings, data=data, measured=measured)
    write(made.tokenizer, out, lineage, change=report, replace=replace)
    return report


def drop_unused(
    tokenizer: PreTrainedTokenizerFast, texts: Iterable[str], settings: DropSettings
) -> Reduction:
    """Remove the tokens that `texts` use less than `settings.min_uses` times.

    Special and other added tokens stay, and whatever keeps text from becoming unknown: the 256 bytes, and
    single characters where there are no bytes to fall back on.

    Args:
        tokenizer: Tokenizer to shrink; it is not changed.
        texts: Text whose tokens are counted, read once.
        settings: What counts as used, and what stays in any case.

    Raises:
        UserError: For a tokenizer of another kind, or a name in `keep` that is no token.
    """
    kind, state = changeable(tokenizer, settings.source)
    vocab = strings(state)
    counts = token_counts(tokenizer, texts)
    used = {piece for piece, index in vocab.items() if counts[index] >= settings.min_uses}
    for piece in settings.keep:
        if piece not in vocab:
            raise UserError(f"{piece!r} is no token", where="keep", fix=nearest(piece, vocab))
    kept = used | set(settings.keep) | _obligatory(state, settings.keep_alphabet)
    parts = (_parts(kept, state["model"]["merges"]) & vocab.keys()) - kept if kind == "bpe" else set()
    kept |= parts
    removed = [piece for piece in sorted(vocab, key=vocab.__getitem__) if piece not in kept]
    smaller = opened(reduced(state, kept), tokenizer)
    return Reduction(smaller, removed, sorted(parts, key=vocab.__getitem__))


def reduced(state: dict[str, Any], kept: set[str]) -> dict[str, Any]:
    """The tokenizer.json dictionary with these pieces and all added tokens, numbered anew."""
    vocab, model = strings(state), dict(state["model"])
    beside = {token["content"]: token["id"] for token in state["added_tokens"]}
    ordered = sorted(kept, key=vocab.__getitem__)
    ordered += sorted(beside.keys() - kept, key=beside.__getitem__)
    ids = {piece: index for index, piece in enumerate(ordered)}
    if model["type"] == "Unigram":
        model["vocab"] = [pair for pair in model["vocab"] if pair[0] in kept]
        unknown = state["model"].get("unk_id")
        model["unk_id"] = None if unknown is None else ids[state["model"]["vocab"][unknown][0]]
    else:
        model["vocab"] = {piece: ids[piece] for piece in ordered if piece in kept}
    if model["type"] == "BPE":
        model["merges"] = [
            (left, right)
            for left, right in model["merges"]
            if left in kept and right in kept and left + right in kept
        ]
    added = sorted((t | {"id": ids[t["content"]]} for t in state["added_tokens"]), key=lambda t: t["id"])
    rest = {"truncation": None, "padding": None, "added_tokens": added, "model": model}
    return state | rest | {"post_processor": fill_template(state["post_processor"], ids)}


def _obligatory(state: dict[str, Any], alphabet: bool | None) -> set[str]:
    """Pieces that stay, used or not."""
    model, vocab = state["model"], strings(state)
    found = {token["content"] for token in state["added_tokens"]} & vocab.keys()
    found |= {model.get("unk_token")} & vocab.keys()
    style = style_of(state)
    covered = style == "bytes"
    if covered:
        found |= byte_alphabet().keys() & vocab.keys()
    if model.get("byte_fallback"):
        pieces = {piece for piece in vocab if _BYTE.fullmatch(piece)}
        found |= pieces
        covered = covered or len(pieces) >= 256
    if not covered if alphabet is None else alphabet:
        prefix = model.get("continuing_subword_prefix") or ""
        found |= {p for p in vocab if len(p) == 1 or (prefix and len(p.removeprefix(prefix)) == 1)}
    if model["type"] == "Unigram":
        if model.get("unk_id") is not None:
            found.add(model["vocab"][model["unk_id"]][0])
        # the lowest score decides how unlikely an unknown character is
        found.add(min(model["vocab"], key=lambda pair: pair[1])[0])
    return found


def _parts(kept: set[str], merges: list[tuple[str, str]]) -> set[str]:
    """All strings on the way from characters to the pieces that merges really lead to."""
    known = Merges(merges)
    needed: set[str] = set()
    for piece in kept:
        parts, steps = known.applied(piece)
        if parts == [piece]:
            needed.update(piece)
            needed.update(left + right for left, right in steps)
    return needed
