"""Reading and opening tokenizers: ids, kind, special tokens by role, a safe padding token."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmstart.checkpoint.headers import read_json
from warmstart.foundation.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "chat_template.jinja",
)
# spellings by role, used only where no file says which token plays it
_SPELLINGS: dict[str, tuple[str, ...]] = {
    "bos": ("<s>", "<|begin_of_text|>", "<bos>", "[BOS]"),
    "eos": ("</s>", "<|end_of_text|>", "<eos>", "[EOS]", "<|endoftext|>"),
    "unk": ("<unk>", "[UNK]"),
    "sep": ("[SEP]",),
    "pad": ("<pad>", "[PAD]", "<|pad|>", "<|padding|>", "<|finetune_right_pad_id|>"),
    "cls": ("[CLS]",),
    "mask": ("<mask>", "[MASK]"),
}


def has_tokenizer(folder: Path) -> bool:
    """Whether the folder holds any tokenizer."""
    return any((folder / name).is_file() for name in FILES if name not in ("special_tokens_map.json",))


def id_count(folder: Path) -> int | None:
    """Largest token id plus one, read from the files; None when only an opaque format is there."""
    ids = [int(i) for i in _added(folder)]
    if (folder / "tokenizer.json").is_file():
        data = read_json(folder / "tokenizer.json")
        vocab = (data.get("model") or {}).get("vocab") or {}
        ids += list(vocab.values()) if isinstance(vocab, dict) else [len(vocab) - 1]
        ids += [int(token["id"]) for token in data.get("added_tokens") or []]
    elif (folder / "vocab.json").is_file():
        ids += [int(i) for i in read_json(folder / "vocab.json").values()]
    elif (folder / "vocab.txt").is_file():
        ids.append(len((folder / "vocab.txt").read_text(encoding="utf-8").splitlines()) - 1)
    else:
        return None
    return max(ids, default=-1) + 1


def _added(folder: Path) -> list[str]:
    file = folder / "tokenizer_config.json"
    return list(read_json(file).get("added_tokens_decoder") or {}) if file.is_file() else []


def check_ids(folder: Path, rows: int | None) -> None:
    """Refuse a tokenizer that can produce an id without an embedding row."""
    count = id_count(folder)
    if count is not None and rows is not None and count > rows:
        raise UserError(
            f"the tokenizer has {count:,} ids and the model only {rows:,} embedding rows",
            where=folder,
            fix="take the tokenizer the model was trained with, or give the model this one with "
            "`warmstart transplant`",
        )


def describe(folder: Path, config: dict[str, Any]) -> dict[str, Any] | None:
    """Kind, size and special tokens of the folder's tokenizer, from its files; None when it has none.

    Returns:
        `kind` (BPE, Unigram, WordPiece, WordLevel, or the file's format), `ids`, `byte_level`,
        `byte_fallback`, `special` (role -> `{"token", "id"}`), `additional` (other special tokens).
    """
    if not has_tokenizer(folder):
        return None
    if not (folder / "tokenizer.json").is_file():
        slow = next(name for name in FILES if (folder / name).is_file())
        return {"kind": f"only {slow}", "ids": id_count(folder), "special": _settings_roles(folder)}
    data = read_json(folder / "tokenizer.json")
    model = data.get("model") or {}
    specials = {t["content"]: int(t["id"]) for t in data.get("added_tokens") or [] if t.get("special")}
    vocab = model.get("vocab") or {}
    pieces = vocab if isinstance(vocab, dict) else {piece: i for i, (piece, _) in enumerate(vocab)}
    roles = {
        role: {"token": token, "id": specials.get(token, pieces.get(token))}
        for role, token in special_tokens(folder, config).items()
    }
    named = {entry["token"] for entry in roles.values()}
    text = str(data.get("pre_tokenizer")) + str(data.get("decoder"))
    return {
        "kind": model.get("type") or ("BPE" if "merges" in model else "unknown"),
        "ids": id_count(folder),
        "byte_level": "ByteLevel" in text,
        "byte_fallback": bool(model.get("byte_fallback")),
        "special": roles,
        "additional": sorted(set(specials) - named),
    }


def special_tokens(folder: Path, config: dict[str, Any]) -> dict[str, str]:
    """Role to token: as the tokenizer's files say, else the model's ids, else well-known spellings."""
    stated = _settings_roles(folder)
    if not (folder / "tokenizer.json").is_file():
        return stated
    data = read_json(folder / "tokenizer.json")
    special = {int(t["id"]): t["content"] for t in data.get("added_tokens") or [] if t.get("special")}
    found: dict[str, str] = {}
    for role in ROLES:
        number = config.get(f"{role}_token_id")
        by_id = special.get(number) if isinstance(number, int) else None
        by_spelling = next((s for s in _SPELLINGS[role] if s in special.values()), None)
        token = stated.get(role) or by_id or by_spelling
        if token:
            found[role] = token
    return found


def _settings_roles(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        table = read_json(folder / name) if (folder / name).is_file() else {}
        for role in ROLES:
            token = table.get(f"{role}_token")
            token = token.get("content") if isinstance(token, dict) else token
            if token:
                found[role] = str(token)
    return found


def load(folder: Path, config: dict[str, Any], *, trust_remote_code: bool = False) -> PreTrainedTokenizerFast:
    """The folder's tokenizer, fast, with a padding token.

    `tokenizer.json` alone is enough. The auto class is used where `tokenizer_config.json` names a class; some
    classes of transformers 5 rebuild the pipeline from the vocabulary and add tokens of their own, so a
    result that does not agree with `tokenizer.json` is replaced by a plain reading of that file.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if not has_tokenizer(folder):
        raise UserError("the checkpoint has no tokenizer", where=folder, fix="add its tokenizer.json")
    whole = folder / "tokenizer.json"
    try:
        if whole.is_file() and not (folder / "tokenizer_config.json").is_file():
            loaded: Any = PreTrainedTokenizerFast(tokenizer_file=str(whole), **_roles(folder, config))
        else:
            loaded = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
            if whole.is_file() and not trust_remote_code and not _agrees(loaded, whole):
                extra = {
                    k: v
                    for k, v in read_json(folder / "tokenizer_config.json").items()
                    if k
                    in ("model_max_length", "padding_side", "clean_up_tokenization_spaces", "chat_template")
                }
                loaded = PreTrainedTokenizerFast(tokenizer_file=str(whole), **_roles(folder, config), **extra)
    except UserError:
        raise
    except Exception as error:  # the library's own errors name neither the file nor a way out
        raise UserError(
            f"the tokenizer cannot be opened ({type(error).__name__}: {str(error).splitlines()[0][:160]})",
            where=folder,
            fix="fetch its tokenizer.json again",
        ) from error
    if not getattr(loaded, "is_fast", False):
        raise UserError(
            "the tokenizer has no fast form", where=folder, fix="convert it to a tokenizer.json first"
        )
    # texts are cut to what the model reads where it reads them; the library would warn of each long document
    loaded.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
    return pad_safely(loaded)


def _roles(folder: Path, config: dict[str, Any]) -> dict[str, str]:
    return {f"{role}_token": token for role, token in special_tokens(folder, config).items()}


def _agrees(loaded: Any, whole: Path) -> bool:
    from tokenizers import Tokenizer

    raw = Tokenizer.from_file(str(whole))
    if not getattr(loaded, "is_fast", False) or loaded.get_vocab() != raw.get_vocab():
        return False
    raw.no_truncation()
    raw.no_padding()
    probe = "The  quick brown\tfox, 12345 naïve Füße!\n 你好 «ёж» ﬁ 🙂 don't"
    return bool(raw.encode(probe).ids == loaded(probe, truncation=False)["input_ids"])


def pad_safely(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Give a tokenizer without padding an existing token for it: never a new id without a row.

    First a token that is spelled as padding, then the end-of-text token, then the unknown token.
    """
    if tokenizer.pad_token_id is None:
        vocab = tokenizer.get_vocab()
        spelled = next((s for s in _SPELLINGS["pad"] if s in vocab), None)
        token = spelled or tokenizer.eos_token or tokenizer.unk_token
        if token is not None:
            tokenizer.pad_token = token
    return tokenizer
