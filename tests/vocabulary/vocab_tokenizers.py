"""Small tokenizers of every style, trained on made-up text, for the vocabulary tests."""

from __future__ import annotations

import json
import random
from functools import cache

from transformers import PreTrainedTokenizerFast

from warmstart.vocabulary.forge import TokenizerForge
from warmstart.vocabulary.settings import TokenizerSettings


@cache
def sentences(seed: int = 0, count: int = 400) -> tuple[str, ...]:
    """English-looking sentences without apostrophes: Zipf-distributed words of common syllables."""
    rng = random.Random(seed)
    letters = "theronanreheinedndhaatenesofornteatitoitstioleisouarasdertve"
    syllables = [letters[i : i + 2] for i in range(0, len(letters), 2)]
    words = ["".join(rng.choice(syllables) for _ in range(rng.randint(1, 4))) for _ in range(150)]
    weights = [1 / (rank + 1) for rank in range(len(words))]
    made = []
    for _ in range(count):
        chosen = rng.choices(words, weights, k=rng.randint(4, 12))
        chosen[0] = chosen[0].capitalize()
        chosen.insert(rng.randrange(len(chosen)), str(rng.randint(0, 999)))
        made.append(" ".join(chosen).replace(" ", ", ", rng.randint(0, 1)) + rng.choice(".!?"))
    return tuple(made)


def forged(kind: str, vocab_size: int = 420, seed: int = 0, **options: object) -> PreTrainedTokenizerFast:
    settings = TokenizerSettings.parse(
        {"corpus": "unused", "kind": kind, "vocab_size": vocab_size, "min_frequency": 2, **options}
    )
    return TokenizerForge(settings).train(sentences(seed))


@cache
def llama_like(vocab_size: int = 600, seed: int = 0) -> PreTrainedTokenizerFast:
    """SentencePiece-like BPE with byte fallback and no pre-tokeniser, as in Llama 2 and Mistral."""
    from tokenizers import Tokenizer

    specials = [("<unk>", "unk"), ("<s>", "bos"), ("</s>", "eos"), ("<pad>", "pad")]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    state = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": content, **flags} for i, (content, _) in enumerate(specials)],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "<s>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [
                {"SpecialToken": {"id": "<s>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {content: i for i, (content, _) in enumerate(specials)},
            "merges": [],
        },
    }
    roles = {f"{role}_token": content for content, role in specials}
    seedling = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        model_input_names=["input_ids", "attention_mask"],
        **roles,
    )
    settings = TokenizerSettings(corpus="unused", like="seedling", vocab_size=vocab_size)
    return TokenizerForge(settings, seedling).train(sentences(seed))


@cache
def gpt2_like(vocab_size: int = 420, seed: int = 0) -> PreTrainedTokenizerFast:
    """Byte-level BPE whose one special token has every role, as in GPT-2."""
    end = "<|endoftext|>"
    roles = dict.fromkeys(("bos", "eos", "pad", "unk", "mask"), end)
    tokenizer = forged("bpe", vocab_size, seed, special_tokens=roles)
    tokenizer.mask_token = tokenizer.pad_token = None
    return tokenizer


_QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


@cache
def qwen_like(vocab_size: int = 420, seed: int = 0) -> PreTrainedTokenizerFast:
    """Byte-level BPE with NFC and the splitting pattern that transformers builds into Qwen2Tokenizer."""
    from tokenizers import Tokenizer

    end = "<|endoftext|>"
    state = json.loads(gpt2_like().backend_tokenizer.to_str())
    split = {"type": "Split", "pattern": {"Regex": _QWEN}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    state |= {
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
    }
    seedling = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        model_input_names=["input_ids", "attention_mask"],
        eos_token=end,
        pad_token=end,
        unk_token=end,
    )
    settings = TokenizerSettings(corpus="unused", like="seedling", vocab_size=vocab_size)
    return TokenizerForge(settings, seedling).train(sentences(seed))


@cache
def t5_like(vocab_size: int = 300, seed: int = 0) -> PreTrainedTokenizerFast:
    """Unigram with pad, eos, unk in front, sentinels at the end, and `</s>` appended."""
    return forged(
        "unigram",
        vocab_size,
        seed,
        template="eos",
        additional_special_tokens=[f"<extra_id_{i}>" for i in range(10)],
    )


@cache
def plain(kind: str, vocab_size: int = 420, seed: int = 0) -> PreTrainedTokenizerFast:
    return forged(kind, vocab_size, seed)


STYLES = {
    "bpe": lambda seed=0: plain("bpe", 420, seed),
    "gpt2": lambda seed=0: gpt2_like(420, seed),
    "qwen": lambda seed=0: qwen_like(420, seed),
    "llama": lambda seed=0: llama_like(600, seed),
    "unigram": lambda seed=0: plain("unigram", 300, seed),
    "wordpiece": lambda seed=0: plain("wordpiece", 300, seed),
    "t5": lambda seed=0: t5_like(300, seed),
}
