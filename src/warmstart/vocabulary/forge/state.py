"""A tokenizer.json dictionary as something to change: what it must be, and how it becomes a tokenizer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.forge.skeleton import KINDS, options_of
from warmstart.vocabulary.settings import Kind
from warmstart.vocabulary.tokens import backend_state

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def changeable(tokenizer: PreTrainedTokenizerFast, where: object = None) -> tuple[Kind, dict[str, Any]]:
    """Kind and tokenizer.json dictionary of a tokenizer whose vocabulary we know how to change.

    Raises:
        UserError: For another model, or a BPE that marks the places of pieces within words.
    """
    state = backend_state(tokenizer)
    model = state["model"]
    kind = KINDS.get(model["type"])
    if kind is None:
        raise UserError(
            f"the vocabulary of a {model['type']} tokenizer cannot be changed",
            where=where,
            fix="take one with a BPE, Unigram or WordPiece model",
        )
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        if kind == "bpe" and model.get(name):
            raise UserError(
                f"a BPE with {name} {model[name]!r} cannot be changed",
                where=where,
                fix="train a new tokenizer with `like` instead",
            )
    if kind == "bpe":
        merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
        state["model"] = model | {"merges": merges}
    return kind, state


def strings(state: dict[str, Any]) -> dict[str, int]:
    """Piece -> id of everything in the model."""
    vocab = state["model"]["vocab"]
    if isinstance(vocab, dict):
        return vocab
    return {piece: index for index, (piece, _) in enumerate(vocab)}


def with_added(state: dict[str, Any]) -> dict[str, Any]:
    """The state with all added tokens in the model too, so that they keep their ids when it grows.

    The library numbers added tokens that the model lacks behind the model's own, whatever ids the file
    states. As pieces they are never produced: `bpe` has no merges for them; as `unigram` pieces they get the
    lowest score, which leaves the score of unknown characters as it was.
    """
    known = strings(state)
    outside = sorted((t["id"], t["content"]) for t in state["added_tokens"] if t["content"] not in known)
    model = dict(state["model"])
    if isinstance(model["vocab"], dict):
        model["vocab"] = model["vocab"] | {content: index for index, content in outside}
    else:
        least = min(score for _, score in model["vocab"])
        model["vocab"] = [*model["vocab"], *([content, least] for _, content in outside)]
    return state | {"model": model}


def opened(state: dict[str, Any], like: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The state as a tokenizer, with the roles and options of `like`."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer.from_str(json.dumps(state))
    return PreTrainedTokenizerFast(tokenizer_object=backend, **options_of(like))
