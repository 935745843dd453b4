"""Opening tokenizers wherever they lie: a folder, a bare tokenizer.json, a checkpoint, a hub id."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmstart.foundation.errors import UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerFast

USUAL_ROLES = {
    "<s>": ("bos", "cls"),
    "</s>": ("eos", "sep"),
    "<pad>": ("pad",),
    "<unk>": ("unk",),
    "<mask>": ("mask",),
    "[PAD]": ("pad",),
    "[UNK]": ("unk",),
    "[CLS]": ("cls",),
    "[SEP]": ("sep",),
    "[MASK]": ("mask",),
    "<|endoftext|>": ("bos", "eos", "unk"),
    "<|begin_of_text|>": ("bos",),
    "<|end_of_text|>": ("eos",),
    "<bos>": ("bos",),
    "<eos>": ("eos",),
}
"""Roles of special tokens in a bare tokenizer.json, which does not state them."""


def open_tokenizer(source: str | Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerFast:
    """A fast tokenizer from a folder, a tokenizer.json file, a checkpoint or a hub id.

    A bare tokenizer.json has no roles; they are read off the usual strings (`<s>`, `[CLS]`, …).

    Raises:
        UserError: When there is no tokenizer, or only a slow one.
    """
    from warmstart.checkpoint import resolve, tokens
    from warmstart.checkpoint.headers import read_json

    path = Path(source).expanduser()
    if path.is_file():
        return bare_tokenizer(path)
    if path.is_dir():
        if not tokens.has_tokenizer(path):
            raise UserError("there is no tokenizer.json", where=path, fix="give a tokenizer folder or file")
        config = read_json(path / "config.json") if (path / "config.json").is_file() else {}
        return tokens.load(path, config, trust_remote_code=trust_remote_code)
    return resolve(str(source), trust_remote_code=trust_remote_code).load_tokenizer()


_PROBE = "The  quick brown\tfox, 12345 naïve Füße!\n 你好 «ёж» ﬁ 🙂 don't"


def check_opening(config: PretrainedConfig, tokenizer: PreTrainedTokenizerFast, where: object) -> None:
    """Make sure that `AutoTokenizer` will open this tokenizer from a folder of this model, as it is.

    transformers 5 opens the folders of some model types (qwen2 among them) with a class that keeps only the
    vocabulary and builds its own normaliser and pre-tokeniser around it; another tokenizer would be cut
    differently by everybody who opens the checkpoint, without a word.

    Raises:
        UserError: When the opened tokenizer is another one.
    """
    import tempfile

    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as name:
        config.save_pretrained(name)
        tokenizer.save_pretrained(name)
        try:
            opened: Any = AutoTokenizer.from_pretrained(name)
        except Exception:  # whatever the class dislikes about the vocabulary
            opened = None
    words = sorted(tokenizer.get_vocab())[:: max(1, len(tokenizer) // 500)]
    probe = _PROBE + " " + " ".join(tokenizer.convert_tokens_to_string([word]) for word in words)
    if opened is not None and opened.get_vocab() == tokenizer.get_vocab():
        given, found = (t(probe, truncation=False)["input_ids"] for t in (tokenizer, opened))
        if given == found:
            return
    raise UserError(
        f"transformers opens every {config.model_type} folder with a tokenizer class of its own, which cuts "
        "text in another way than this tokenizer",
        where=where,
        fix="train the tokenizer with `like` naming the source checkpoint",
    )


def bare_tokenizer(file: Path) -> PreTrainedTokenizerFast:
    """A tokenizer from a `tokenizer.json` alone."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    try:
        state = json.loads(file.read_text(encoding="utf-8"))
        backend = Tokenizer.from_str(json.dumps(state))
    except Exception as error:  # tokenizers raises bare exceptions
        raise UserError(
            f"not a tokenizer.json: {error}", where=file, fix="give a file written by the tokenizers library"
        ) from error
    roles: dict[str, Any] = {}
    for token in state.get("added_tokens", []):
        for role in USUAL_ROLES.get(token["content"], ()):
            if token.get("special"):
                roles.setdefault(f"{role}_token", token["content"])
    return PreTrainedTokenizerFast(tokenizer_object=backend, **roles)
