"""Everything of a tokenizer.json except its vocabulary: from a kind, or from another tokenizer."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from warmstart.foundation.errors import UserError, nearest
from warmstart.vocabulary.settings import Kind, TokenizerSettings
from warmstart.vocabulary.tokens import ROLES, Style, backend_state, special_roles, style_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

KINDS: dict[str, Kind] = {"BPE": "bpe", "Unigram": "unigram", "WordPiece": "wordpiece"}
_METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}
_ANGLED = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>"}
_SQUARE = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}


@dataclass
class Skeleton:
    """A tokenizer without vocabulary.

    Attributes:
        kind: Which model is trained.
        style: How spaces and bytes are written.
        state: A tokenizer.json dictionary whose `model` holds only options.
        front: Special tokens with the first ids, in order; `added_tokens` entries without ids.
        back: Special tokens with the last ids.
        roles: Role -> string.
        options: Keyword arguments of `PreTrainedTokenizerFast` (roles, input names, maximal length, …).
    """

    kind: Kind
    style: Style
    state: dict[str, Any]
    front: list[dict[str, Any]]
    back: list[dict[str, Any]]
    roles: dict[str, str]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def special_count(self) -> int:
        """Number of special tokens."""
        return len(self.front) + len(self.back)


def skeleton(settings: TokenizerSettings, like: PreTrainedTokenizerFast | None = None) -> Skeleton:
    """The parts around the vocabulary, from `like` or from the usual ones of the kind."""
    from warmstart.vocabulary.forge.byte_tokenizer import byte_skeleton
    from warmstart.vocabulary.forge.supertokens import newline_splitter

    if like is not None:
        made = _from_tokenizer(settings, like)
    else:
        made = byte_skeleton(settings) if settings.kind == "bytes" else _from_kind(settings)
    for content in settings.additional_special_tokens:
        if content not in {token["content"] for token in (*made.front, *made.back)}:
            made.back.append(added_token(content))
            made.options.setdefault("extra_special_tokens", []).append(content)
    if settings.lowercase:
        made.state["normalizer"] = _before({"type": "Lowercase"}, made.state.get("normalizer"))
    if settings.supertokens:
        made.state["pre_tokenizer"] = newline_splitter(made.kind, made.style)
    if settings.model_max_length:
        made.options["model_max_length"] = settings.model_max_length
    return made


def _from_kind(settings: TokenizerSettings) -> Skeleton:
    kind: Kind = settings.kind or "bpe"
    check_roles(settings.special_tokens)
    usual = dict(_SQUARE if kind == "wordpiece" else _ANGLED)
    roles = usual | settings.special_tokens
    front = [added_token(content) for content in dict.fromkeys(roles.values()) if content != roles["mask"]]
    alone = list(roles.values()).count(roles["mask"]) == 1
    # as in RoBERTa, the mask takes the space before it
    mask = added_token(roles["mask"], lstrip=alone and kind != "wordpiece")
    back = [] if kind == "wordpiece" else [mask]
    front += [mask] if kind == "wordpiece" else []
    options: dict[str, Any] = {f"{role}_token": content for role, content in roles.items()}
    if kind == "wordpiece":
        around = settings.template or "both"
        opening, closing = roles.get("cls"), roles.get("sep")
    else:
        around = settings.template or ("none" if kind == "bpe" else "both")
        opening, closing = roles.get("bos"), roles.get("eos")
        options |= {"cls_token": roles.get("cls", opening), "sep_token": roles.get("sep", closing)}
        options["model_input_names"] = ["input_ids", "attention_mask"]
    state: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": _normaliser(settings, kind),
        "post_processor": template(around, opening, closing, pairs=kind == "wordpiece"),
    }
    if kind == "bpe":
        state |= {"pre_tokenizer": BYTE_LEVEL, "decoder": BYTE_LEVEL}
        state["model"] = {"type": "BPE", "byte_fallback": False, "fuse_unk": False, "ignore_merges": False}
        style: Style = "bytes"
    elif kind == "unigram":
        state |= {"pre_tokenizer": _METASPACE, "decoder": _METASPACE}
        state["model"], style = {"type": "Unigram", "byte_fallback": False}, "metaspace"
    else:
        state["pre_tokenizer"] = {"type": "BertPreTokenizer"}
        state["decoder"] = {"type": "WordPiece", "prefix": "##", "cleanup": True}
        state["model"], style = _wordpiece_options(roles["unk"]), "wordpiece"
    return Skeleton(kind, style, state, front, back, roles, options)


def _from_tokenizer(settings: TokenizerSettings, like: PreTrainedTokenizerFast) -> Skeleton:
    state = backend_state(like)
    model = state["model"]
    kind = KINDS.get(model["type"])
    if kind is None:
        raise UserError(f"a {model['type']} tokenizer cannot be followed", where=settings.like)
    if settings.kind not in (None, kind):
        raise UserError(
            f"`like` is a {kind} tokenizer, `kind` asks for {settings.kind}",
            where=settings.like,
            fix="remove one of the two",
        )
    roles = roles_of(like)
    known = {token["id"]: token for token in state.get("added_tokens", [])}
    half = len(like) / 2
    front: list[dict[str, Any]] = []
    back: list[dict[str, Any]] = []
    for index, names in sorted(special_roles(like).items()):
        content = str(like.convert_ids_to_tokens(index))
        entry = {k: v for k, v in known.get(index, added_token(content)).items() if k != "id"}
        named = names != ("additional",)
        (front if named and index < half else back).append(entry | {"special": True})
    style = style_of(state)
    state = copy.deepcopy(state) | {"truncation": None, "padding": None, "added_tokens": []}
    state["model"] = {k: v for k, v in model.items() if k not in ("vocab", "merges", "unk_id")}
    state["model"] |= {"dropout": None, "ignore_merges": False} if kind == "bpe" else {}
    options = options_of(like)
    return Skeleton(kind, style, state, front, back, roles, options)


def check_roles(special_tokens: dict[str, str]) -> None:
    """Refuse special tokens for roles that do not exist."""
    unknown = sorted(set(special_tokens) - set(ROLES))
    if unknown:
        raise UserError(
            f"unknown role {unknown[0]!r}", where="special_tokens", fix=nearest(unknown[0], ROLES)
        )


def options_of(like: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Keyword arguments with which `PreTrainedTokenizerFast` gives another backend the roles of `like`."""
    roles = roles_of(like)
    options: dict[str, Any] = {f"{role}_token": content for role, content in roles.items()}
    special = [str(like.convert_ids_to_tokens(index)) for index in sorted(special_roles(like))]
    options["extra_special_tokens"] = [content for content in special if content not in roles.values()]
    options["model_input_names"] = list(like.model_input_names)
    for name in ("padding_side", "truncation_side", "clean_up_tokenization_spaces", "chat_template"):
        if getattr(like, name, None) is not None:
            options[name] = getattr(like, name)
    if like.model_max_length and like.model_max_length < 10**12:  # the sentinel for "not set" is 1e30
        options["model_max_length"] = like.model_max_length
    return options


def roles_of(like: PreTrainedTokenizerFast) -> dict[str, str]:
    """Role -> string of the special tokens that have one."""
    return {role: str(value) for role in ROLES if (value := getattr(like, f"{role}_token", None)) is not None}


def fill_template(state: Any, ids: dict[str, int]) -> Any:
    """The post-processor with the new ids of its special tokens.

    Raises:
        UserError: When it names a token that is not a special token.
    """
    if isinstance(state, list):
        return [fill_template(item, ids) for item in state]
    if not isinstance(state, dict):
        return state
    state = dict(state)
    try:
        if state.get("type") == "TemplateProcessing":
            state["special_tokens"] = {
                name: entry | {"ids": [ids[token] for token in entry["tokens"]]}
                for name, entry in state["special_tokens"].items()
            }
        elif state.get("type") in ("BertProcessing", "RobertaProcessing"):
            state |= {key: [state[key][0], ids[state[key][0]]] for key in ("sep", "cls")}
        elif state.get("type") == "Sequence":
            state["processors"] = fill_template(state["processors"], ids)
    except KeyError as error:
        raise UserError(f"the template uses the token {error}, which is not special") from error
    return state


def added_token(content: str, *, lstrip: bool = False) -> dict[str, Any]:
    """An `added_tokens` entry of a special token, without its id."""
    flags = {"single_word": False, "lstrip": lstrip, "rstrip": False, "normalized": False, "special": True}
    return {"content": content, **flags}


def _normaliser(settings: TokenizerSettings, kind: Kind) -> dict[str, Any] | None:
    usual = {"bpe": "none", "unigram": "nfkc", "wordpiece": "bert"}[kind]
    name = settings.normalization or usual
    if name == "bert":
        lower = bool(settings.lowercase)
        bert = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
        return bert | {"strip_accents": None, "lowercase": lower}
    return None if name == "none" else {"type": name.upper()}


def _before(first: dict[str, Any], rest: dict[str, Any] | None) -> dict[str, Any]:
    if rest is None:
        return first
    if rest["type"] == "BertNormalizer":
        return rest | {"lowercase": True}
    inner = rest["normalizers"] if rest["type"] == "Sequence" else [rest]
    return {"type": "Sequence", "normalizers": [first, *inner]}


def _wordpiece_options(unk: str) -> dict[str, Any]:
    limits = {"continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
    return {"type": "WordPiece", "unk_token": unk, **limits}


def template(kind: str, opening: str | None, closing: str | None, *, pairs: bool) -> dict[str, Any] | None:
    """A post-processor that puts `opening` and `closing` around texts: `none`, `bos`, `eos` or `both`."""
    if kind == "none":
        return None
    start = [opening] if kind in ("bos", "both") and opening else []
    end = [closing] if kind in ("eos", "both") and closing else []

    def special(token: str, type_id: int = 0) -> dict[str, Any]:
        return {"SpecialToken": {"id": token, "type_id": type_id}}

    def text(name: str, type_id: int = 0) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": type_id}}

    second = 1 if pairs else 0
    single = [*map(special, start), text("A"), *map(special, end)]
    # two texts: RoBERTa puts </s></s> between them, T5, which opens with nothing, one </s>
    middle = [] if pairs or not start else [special(token) for token in end]
    both = [*single, *middle, text("B", second), *(special(token, second) for token in end)]
    table = {token: {"id": token, "ids": [0], "tokens": [token]} for token in (*start, *end)}
    return {"type": "TemplateProcessing", "single": single, "pair": both, "special_tokens": table}
