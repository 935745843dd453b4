"""Special-token ids in `config.json` and `generation_config.json`, kept equal to the tokenizer's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmstart.checkpoint.headers import read_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

_MAIN = ("bos", "eos", "pad")
_START = "decoder_start_token_id"
# families that start decoding from the padding token; a fresh configuration of transformers 5 omits it
_STARTS_FROM_PADDING = ("t5", "mt5", "umt5", "longt5", "switch_transformers")
_KEYS = (
    "decoder_start_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "sep_token_id",
    "cls_token_id",
    "mask_token_id",
)


def align_ids(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, rows: int) -> None:
    """Rewrite the id fields of a written folder so that they mean the tokenizer's tokens.

    `bos`, `eos` and `pad` become the tokenizer's (null where it has none). Other fields, such as
    `decoder_start_token_id`, follow the role whose old id they had. A list of end tokens keeps the entries
    that the tokenizer knows as special, with its own end token first. `pad_token_id` stays where position
    ids are counted from it (RoBERTa), since another value would be another function.
    """
    for name in ("config.json", "generation_config.json"):
        file = folder / name
        if file.is_file():
            table = read_json(file)
            _align(table, tokenizer, rows, keep_pad=positions_from_padding(model))
            if model.config.model_type in _STARTS_FROM_PADDING and table.get(_START) is None:
                table[_START] = table.get("pad_token_id")
            file.write_text(json.dumps(table, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def positions_from_padding(model: PreTrainedModel) -> bool:
    """Whether the embeddings count positions from the padding id, as RoBERTa's do."""
    return any(
        isinstance(getattr(module, "padding_idx", None), int) and hasattr(module, "position_embeddings")
        for module in model.modules()
    )


def _align(table: dict[str, Any], tokenizer: Any, rows: int, *, keep_pad: bool) -> None:
    special = set(tokenizer.all_special_ids)
    old = {role: table.get(f"{role}_token_id") for role in _MAIN}
    new = {role: getattr(tokenizer, f"{role}_token_id") for role in (*_MAIN, "sep", "cls", "mask")}
    if keep_pad and old["pad"] is not None:
        new["pad"] = old["pad"]
    for key in _KEYS:
        value = table.get(key)
        if value is None:
            continue
        own = key.removesuffix("_token_id")
        role = own if own in new else next((r for r in ("pad", "bos", "eos") if old[r] == value), None)
        if role is not None:
            table[key] = new[role]
        elif not (isinstance(value, int) and value < rows):
            table[key] = None
    for role in _MAIN:
        key = f"{role}_token_id"
        if key not in table and new[role] is None:
            continue
        value = new[role]
        if role == "eos" and isinstance(old["eos"], list):
            others = [i for i in old["eos"] if i in special and i != value]
            value = (
                [value, *others]
                if value is not None and others
                else value
                if value is not None
                else others or None
            )
        table[key] = value
