"""The letter cipher: another script and numbering, but the same segmentation, so the true rows are known."""

from __future__ import annotations

import json
import re

import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from warmstart.corpus.named.cipher import LETTERS, encipher_letters
from warmstart.vocabulary.forge.skeleton import fill_template
from warmstart.vocabulary.tokens import backend_state, style_of

_SPECIAL = re.compile(r"<extra_id_\d+>|<mask>|\[MASK\]")


def cipher(text: str) -> str:
    """The text with every letter moved to another script; special tokens stay."""
    kept, out, position = list(_SPECIAL.finditer(text)), [], 0
    for match in kept:
        out += [encipher_letters(text[position : match.start()]), match[0]]
        position = match.end()
    return "".join(out) + encipher_letters(text[position:])


def cipher_tokenizer(
    source: PreTrainedTokenizerFast, seed: int = 0
) -> tuple[PreTrainedTokenizerFast, np.ndarray]:
    """A tokenizer that cuts enciphered text exactly as `source` cuts the plain text, with shuffled ids.

    Returns:
        The tokenizer, and `gold` with `gold[target id] = source id`.
    """
    state = backend_state(source)
    model, style = state["model"], style_of(state)
    special = {token["content"] for token in state["added_tokens"]}
    order = np.random.default_rng(seed).permutation(len(source))  # order[source id] = target id

    def moved(string: str) -> str:
        if string in special or re.fullmatch(r"<0x..>", string):
            return string
        if style == "bytes":
            return "".join(_byte_level(LETTERS[c]) if c in LETTERS else c for c in string)
        return "".join(LETTERS.get(c, c) for c in string)

    new = {moved(string): int(order[index]) for string, index in source.get_vocab().items()}
    assert len(new) == len(source)
    if model["type"] == "Unigram":
        score = {moved(piece): value for piece, value in model["vocab"]}
        strings = sorted(new, key=new.__getitem__)
        model["vocab"] = [[string, score.get(string, 0.0)] for string in strings]
        model["unk_id"] = new[moved(source.unk_token)] if model["unk_id"] is not None else None
    else:
        model["vocab"] = new
    if model["type"] == "BPE":
        first = [list(_byte_level(letter)) for letter in LETTERS.values()] if style == "bytes" else []
        model["merges"] = first + [[moved(a), moved(b)] for a, b in model["merges"]]
    added = sorted(({**t, "id": new[t["content"]]} for t in state["added_tokens"]), key=lambda t: t["id"])
    ids = {t["content"]: t["id"] for t in added}
    state |= {"added_tokens": added, "post_processor": fill_template(state["post_processor"], ids)}
    roles = {f"{role}_token": getattr(source, f"{role}_token") for role in _ROLES}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        model_input_names=list(source.model_input_names),
        extra_special_tokens=[t for t in special if t not in roles.values()],
        **{role: token for role, token in roles.items() if token is not None},
    )
    gold = np.empty(len(order), dtype=np.int64)
    gold[order] = np.arange(len(order))
    return tokenizer, gold


_ROLES = ("bos", "eos", "pad", "unk", "mask", "cls", "sep")


def _byte_level(letter: str) -> str:
    from warmstart.vocabulary.tokens import to_byte_level

    return to_byte_level(letter.encode())
