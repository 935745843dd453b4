"""What a checkpoint is, from headers and small files: for `warmstart show` and for advice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from warmstart.checkpoint import tokens
from warmstart.checkpoint.handle import Checkpoint
from warmstart.checkpoint.headers import weight_files
from warmstart.checkpoint.lineage import expected_hashes
from warmstart.checkpoint.sources import resolve
from warmstart.checkpoint.verify import pickled_files, remote_code
from warmstart.foundation.errors import UserError

_HEADS = ("lm_head.weight", "embed_out.weight", "decoder.weight", "output.weight")
_LENGTHS = ("max_position_embeddings", "n_positions", "n_ctx", "seq_length")


def inspect(checkpoint: Checkpoint | str | Path, *, trust_remote_code: bool = False) -> dict[str, Any]:
    """Describe a checkpoint without reading its weights.

    Args:
        checkpoint: A resolved checkpoint, or a source for `resolve` (then only structure is checked, neither
            hashes nor values).
        trust_remote_code: Accept a checkpoint that brings code; nothing of it runs here.

    Returns:
        Plain data: `name`, `path`, `hub_id`, `revision`, `task`, `family`, `architecture`, `parameters` (part
        -> count, with `total`), `parts_from` (`anatomy` or `modules`), `bytes`, `dtypes` (type ->
        parameters), `shards`, `tensors`, `rows`, `tied`, `context_length`, `tokenizer` (see
        [`describe`][warmstart.checkpoint.tokens.describe]), `license`, `lineage` (record), `tree`, `risks`
        (sentences).
    """
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = resolve(checkpoint, trust_remote_code=trust_remote_code, scan=False)
    config, lineage = checkpoint.config, checkpoint.lineage
    kinds: Counter[str] = Counter()
    for tensor in checkpoint.tensors.values():
        kinds[tensor.dtype] += tensor.numel
    parameters, origin = _parameters(checkpoint)
    tokenizer = tokens.describe(checkpoint.path, config)
    files = weight_files(checkpoint.path)
    return {
        "name": checkpoint.name,
        "path": str(checkpoint.path),
        "hub_id": checkpoint.hub_id,
        "revision": checkpoint.revision,
        "task": checkpoint.task,
        "family": checkpoint.family,
        "architecture": (config.get("architectures") or [None])[0],
        "parameters": parameters,
        "parts_from": origin,
        "bytes": sum(file.stat().st_size for file in files),
        "dtypes": dict(kinds.most_common()),
        "shards": len(files),
        "tensors": len(checkpoint.tensors),
        "rows": checkpoint.rows,
        "tied": _tied(checkpoint),
        "context_length": next((config[k] for k in _LENGTHS if isinstance(config.get(k), int)), None),
        "tokenizer": tokenizer,
        "license": checkpoint.license,
        "lineage": lineage.model_dump(mode="json") if lineage else None,
        "tree": lineage.tree(checkpoint.name) if lineage else None,
        "risks": risks(checkpoint, tokenizer),
    }


def _tied(checkpoint: Checkpoint) -> bool:
    return not any(name.endswith(_HEADS) for name in checkpoint.tensors)


def _parameters(checkpoint: Checkpoint) -> tuple[dict[str, int], str]:
    """Parameters per part by the family's table, or per top-level module where there is no table."""
    from warmstart.anatomy import anatomy_of

    # transformers 5 decides for T5 by the stored weights, whatever config.json says
    tied = _tied(checkpoint) if checkpoint.config.get("is_encoder_decoder") else None
    try:
        if checkpoint.form is not None:
            raise UserError("its parameters are not those of the table")
        counts = anatomy_of(checkpoint.config, tied=tied).parameters(checkpoint.tensors).as_dict()
        return {part: n for part, n in counts.items() if n}, "anatomy"
    except UserError:
        parts: Counter[str] = Counter()
        for name, tensor in checkpoint.tensors.items():
            parts[_module(name)] += tensor.numel
        return {**parts, "total": sum(parts.values())}, "modules"


def _module(name: str) -> str:
    """The part of a parameter's name before its layer number or its last word: `model.layers`, `lm_head`."""
    pieces = name.split(".")
    numbered = next((i for i, piece in enumerate(pieces) if piece.isdigit()), len(pieces) - 1)
    return ".".join(pieces[: min(2, max(1, numbered))])


def risks(checkpoint: Checkpoint, tokenizer: dict[str, Any] | None) -> list[str]:
    """Sentences about what may surprise whoever uses this checkpoint."""
    folder = checkpoint.path
    found = list(checkpoint.warnings)
    if code := remote_code(folder, checkpoint.config):
        found.append(f"it brings code of its own ({', '.join(code)})")
    if checkpoint.form is not None:
        found.append("transformers alone does not open it: use warmstart, or `warmstart export`")
    if checkpoint.base_only:
        found.append("no masked-language-model head is stored: a fresh one is drawn when it is opened")
    if pickled := pickled_files(folder):
        found.append(f"pickled files lie beside the weights and are never opened: {', '.join(pickled)}")
    used = {file.name for file in weight_files(folder)}
    if unused := sorted(p.name for p in folder.glob("*.safetensors") if p.name not in used):
        found.append(f"weight files that are not used: {', '.join(unused)}")
    if not used <= set(expected_hashes(folder)):
        found.append("no hashes were recorded for its weights: a swapped file would go unnoticed")
    if checkpoint.license is None:
        found.append("no licence is stated")
    return found + _tokenizer_risks(checkpoint, tokenizer)


def _tokenizer_risks(checkpoint: Checkpoint, tokenizer: dict[str, Any] | None) -> list[str]:
    if tokenizer is None:
        return ["it has no tokenizer"]
    found: list[str] = []
    rows, ids, special = checkpoint.rows, tokenizer["ids"], tokenizer["special"]
    if rows is not None and ids is not None and rows > ids:
        found.append(f"{rows - ids:,} of {rows:,} embedding rows belong to no token (padding)")
    stated = checkpoint.config.get("vocab_size")
    if rows is not None and isinstance(stated, int) and stated != rows:
        found.append(f"config.json says vocab_size {stated:,}, the embedding has {rows:,} rows")
    if checkpoint.task in ("causal", "seq2seq") and "eos" not in special:
        found.append("no end-of-text token: generation does not know when to stop")
    if checkpoint.task == "masked" and "mask" not in special:
        found.append("no mask token")
    if "pad" not in special:
        found.append("no padding token: another special token will serve")
    for role, entry in special.items():
        token, number = entry if isinstance(entry, str) else entry["token"], None
        if isinstance(entry, dict):
            number = entry["id"]
            if number is None:
                found.append(f"the {role} token {token} is not in the vocabulary")
        given = checkpoint.config.get(f"{role}_token_id")
        if isinstance(given, int) and number is not None and given != number:
            found.append(f"config.json says {role}_token_id {given}, the tokenizer's {token} is {number}")
    return found
