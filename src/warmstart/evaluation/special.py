"""The special tokens that measuring needs: what starts a document, what surrounds it, sentinels of T5."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from warmstart.foundation.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def surrounding(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Ids that the tokenizer itself puts before and after a text (`[CLS]`, `[SEP]`; `</s>`; nothing)."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return full[:start], full[start + len(bare) :]
    return [], []


def end_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends a text.

    Raises:
        UserError: There is none.
    """
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    if end is None:
        raise UserError(
            "the tokenizer has no end-of-text token",
            where=getattr(tokenizer, "name_or_path", None) or None,
            fix="give it an eos_token",
        )
    return int(end)


def start_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id after which a causal model expects a document to begin.

    The beginning-of-text token if the tokenizer itself puts one before a text (Llama, Gemma). Otherwise the
    end-of-text token, because packed training text separates documents by it (GPT-2, GPT-NeoX, models trained
    here); or the separator, where there is no end of text.
    """
    before, _ = surrounding(tokenizer)
    if before and before[-1] == tokenizer.bos_token_id:
        return before[-1]
    for token in (tokenizer.eos_token_id, tokenizer.sep_token_id, tokenizer.bos_token_id):
        if token is not None:
            return int(token)
    raise UserError(
        "the tokenizer has neither an end-of-text nor a beginning-of-text token",
        where=tokenizer.name_or_path or None,
        fix="set eos_token in tokenizer_config.json",
    )


def mask_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id of the mask token; `UserError` when there is none."""
    if tokenizer.mask_token_id is None:
        raise UserError(
            "the tokenizer has no mask token",
            where=tokenizer.name_or_path or None,
            fix="use a tokenizer of a masked language model, or set mask_token",
        )
    return int(tokenizer.mask_token_id)


def sentinels(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of `<extra_id_0>`, `<extra_id_1>` … in this order (T5 gives them descending ids).

    Raises:
        UserError: There is no `<extra_id_0>`.
    """
    found: dict[int, int] = {}
    for token, index in tokenizer.get_vocab().items():
        if match := re.fullmatch("▁?<extra_id_([0-9]+)>", token):  # mT5 has them as pieces with a space
            found[int(match[1])] = index
    ids = [found[i] for i in range(len(found)) if i in found]
    if 0 not in found:
        raise UserError(
            "the tokenizer has no sentinel tokens <extra_id_0>, <extra_id_1> …",
            where=tokenizer.name_or_path or None,
            fix="add them as additional special tokens, or use another objective",
        )
    return ids
