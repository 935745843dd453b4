"""A tokenizer with new tokens at its end, each merged from the pieces of a frequent word."""

from __future__ import annotations

import json
from functools import cache

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast
from vocab_tokenizers import plain, sentences


@cache
def extended(
    count: int = 6, vocab_size: int = 300
) -> tuple[PreTrainedTokenizerFast, PreTrainedTokenizerFast]:
    """Byte-level BPE and the same with merges of `count` words (parts on the way become tokens too)."""
    source = plain("bpe", vocab_size)
    state = json.loads(source.backend_tokenizer.to_str())
    vocabulary, merges = state["model"]["vocab"], state["model"]["merges"]
    words: dict[str, int] = {}
    for word in " ".join(sentences()).split():
        words[word] = words.get(word, 0) + 1
    added = 0
    for word in sorted(words, key=lambda w: (-words[w], w)):
        pieces = source.tokenize(" " + word)
        if not 2 <= len(pieces) <= 4 or not word.isalpha():
            continue
        while len(pieces) > 1:
            joined = pieces[0] + pieces[1]
            if joined not in vocabulary:
                vocabulary[joined] = len(source) + added
                merges.append([pieces[0], pieces[1]])
                added += 1
            pieces = [joined, *pieces[2:]]
        count -= 1
        if not count:
            break
    roles = {
        f"{role}_token": getattr(source, f"{role}_token") for role in ("bos", "eos", "pad", "unk", "mask")
    }
    backend = Tokenizer.from_str(json.dumps(state))
    return source, PreTrainedTokenizerFast(tokenizer_object=backend, **roles)
