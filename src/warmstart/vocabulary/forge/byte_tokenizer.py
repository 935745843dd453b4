"""A vocabulary of bytes: any text in any script, nothing to learn and nothing unknown.

The ids are those of ByT5 (Xue et al., "ByT5: Towards a token-free future with pre-trained byte-to-byte
models", arXiv 2105.13626), which MonoByte (Abonizio et al., arXiv 2209.11035) shares: pad 0, eos 1, unk 2,
byte b at b + 3, then sentinels. It is written as a byte-level BPE without merges, so that it opens as any
fast tokenizer and can be extended with pieces later.

The sentinels of ByT5 have three conventions. `ascending`: `<extra_id_0>` has id 259, as in the library's
`ByT5Tokenizer`. `descending`: `<extra_id_0>` has the last id (383 of 384), as its Flax script for span
corruption counts. Google's own code counts down from 258, over ids of bytes: those beyond the eleventh
(byte 0xF4) also stand for text, so that order cannot be read back and is not offered. Whoever continues a
checkpoint must choose the order with which it was trained; the tokenizer stores it, in the ids.
"""

from __future__ import annotations

from typing import Any

from warmstart.vocabulary.forge.skeleton import BYTE_LEVEL, Skeleton, added_token, check_roles, template
from warmstart.vocabulary.settings import TokenizerSettings
from warmstart.vocabulary.tokens import byte_alphabet

ROLES = {"pad": "<pad>", "eos": "</s>", "unk": "<unk>"}
"""Roles of the ids 0, 1 and 2."""


def byte_skeleton(settings: TokenizerSettings) -> Skeleton:
    """Special tokens and options around the 256 bytes; further roles and sentinels follow the bytes."""
    check_roles(settings.special_tokens)
    roles = ROLES | settings.special_tokens
    front = [added_token(roles[role]) for role in ROLES]
    further = [content for content in dict.fromkeys(roles.values()) if content not in _contents(front)]
    sentinels = [f"<extra_id_{number}>" for number in range(settings.sentinels)]
    ordered = sentinels if settings.sentinel_order == "ascending" else sentinels[::-1]
    state: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": BYTE_LEVEL | {"use_regex": False},
        "post_processor": template(settings.template or "eos", roles.get("bos"), roles["eos"], pairs=False),
        "decoder": BYTE_LEVEL | {"use_regex": False},
        "model": {"type": "BPE", "byte_fallback": False, "fuse_unk": False, "ignore_merges": False},
    }
    options: dict[str, Any] = {f"{role}_token": content for role, content in roles.items()}
    options |= {"model_input_names": ["input_ids", "attention_mask"], "extra_special_tokens": sentinels}
    back = [added_token(content) for content in (*further, *ordered)]
    return Skeleton("bytes", "bytes", state, front, back, roles, options)


def byte_model() -> dict[str, Any]:
    """The learned part, of which nothing is learned: byte values in order and no merges."""
    by_value = sorted(byte_alphabet().items(), key=lambda item: item[1])
    return {"vocab": dict(by_value), "merges": []}


def _contents(tokens: list[dict[str, Any]]) -> set[str]:
    return {token["content"] for token in tokens}
