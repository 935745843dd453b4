"""Saving a checkpoint: whole or not at all, in the layout that transformers reads, with lineage and card."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmstart.checkpoint.architecture import auto_class, lacks_masked_head, task_of
from warmstart.checkpoint.card import CARD_KEYS, render_card
from warmstart.checkpoint.forms import note_of, once, open_form, write_note
from warmstart.checkpoint.handle import Checkpoint, quiet_transformers
from warmstart.checkpoint.headers import read_headers, read_json
from warmstart.checkpoint.ids import align_ids
from warmstart.checkpoint.lineage import FORMAT, RECORD, Lineage
from warmstart.foundation.errors import UserError, nearest
from warmstart.foundation.files import atomic_folder, sha256

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

_SLACK = 4 << 20  # card, record, configuration and the file system's own bookkeeping


def save_checkpoint(
    out: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast | None,
    *,
    lineage: Lineage,
    card: Mapping[str, Any] | None = None,
    replace: bool = False,
    dtype: torch.dtype | str | None = None,
    max_shard_size: str | int = "5GB",
    verify: bool = False,
    state_dict: Mapping[str, torch.Tensor] | None = None,
) -> Checkpoint:
    """Write a model folder: configuration, safetensors, tokenizer, `warmstart.json`, `README.md`.

    Everything is written beside `out` under a temporary name and renamed, so a crash, a full disk or Ctrl-C
    leaves what was there before. Tied weights are stored once. Special-token ids of the configuration are
    made equal to the tokenizer's. A model of another form, such as factorised rows, keeps it and gets a note.

    Args:
        out: Folder to create.
        model: Any causal, masked or encoder-decoder model of transformers; wrappers of compile and DDP are
            taken off.
        tokenizer: Its tokenizer; None for a model that has none.
        lineage: Where it comes from (see `Lineage.of`).
        card: What only a person knows, for the model card: `title`, `summary`, `language`, `license`, `tags`,
            `datasets`, `metrics`, `relation`.
        replace: Whether an existing `out` may be replaced.
        dtype: Type of the stored weights; None keeps the model's.
        max_shard_size: Largest file, such as `"5GB"`; one tensor is never split.
        verify: Open the written folder again and compare weights and logits with the model in memory.
        state_dict: Weights to store in place of the model's own (gathered by a sharded trainer).

    Raises:
        UserError: For an existing folder, a full disk, weights that are not finite, a tokenizer with more ids
            than rows, or a reload that computes something else.
    """
    out = Path(out)
    details = _checked_card(card)
    inner = _unwrap(model)
    stored = _state(inner, state_dict, dtype)
    note = note_of(inner)
    if note is not None:
        stored = once(inner, stored)
    rows = _rows(inner)
    if tokenizer is not None and len(tokenizer) > rows:
        raise UserError(
            f"the tokenizer has {len(tokenizer):,} ids and the model only {rows:,} embedding rows",
            fix="give the model rows for them first, with `warmstart transplant`",
        )
    if out.exists() and not replace:
        raise UserError("the output folder already exists", where=out, fix="choose another or remove it")
    _check_space(out, stored, len(tokenizer) if tokenizer is not None else 0)
    with _too_large(out), atomic_folder(out, replace=replace) as folder:
        with quiet_transformers():
            inner.save_pretrained(folder, state_dict=dict(stored), max_shard_size=max_shard_size)
        _state_dtype(folder, stored)
        if note is not None:
            write_note(folder, note)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
            _portable_class(folder / "tokenizer_config.json")
            align_ids(folder, inner, tokenizer, rows)
        config = read_json(folder / "config.json")
        write_card(folder, out, config, type(inner).__name__, lineage, details, form=note is not None)
        if verify:
            _compare(folder, out, inner, stored)
        write_record(folder, lineage)
    return Checkpoint(out, config, read_headers(out), trust_remote_code=bool(config.get("auto_map")))


def _portable_class(file: Path) -> None:
    """Call the generic fast tokenizer what every version of transformers calls it, not only version 5."""
    table = read_json(file)
    if table.get("tokenizer_class") == "TokenizersBackend":
        table["tokenizer_class"] = "PreTrainedTokenizerFast"
        file.write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_card(
    folder: Path,
    out: Path,
    config: Mapping[str, Any],
    architecture: str,
    lineage: Lineage,
    details: Mapping[str, Any],
    form: bool = False,
) -> None:
    """Write `README.md`, the model card.

    Args:
        folder: The checkpoint as far as it is written, its weights included.
        out: Where it will stand; its name is the model's.
        config: Its configuration.
        architecture: Class of the model, told of an encoder without a language-model head.
        lineage: Where it comes from.
        details: What only a person knows.
        form: See [`render_card`][warmstart.checkpoint.card.render_card].
    """
    task, tensors = task_of(dict(config), where=out, remote=True), read_headers(folder)
    parameters = sum(tensor.numel for tensor in tensors.values())
    own = architecture if lacks_masked_head(task, list(tensors)) else ""
    name, family = out.absolute().name, str(config["model_type"])
    text = render_card(name, task, family, parameters, lineage, details, own, form=form)
    (folder / "README.md").write_text(text, encoding="utf-8")


def write_record(folder: Path, lineage: Lineage, known: Mapping[str, str] | None = None) -> None:
    """Write `warmstart.json`: the lineage and the SHA-256 of every file that is in the folder by then.

    Args:
        folder: The checkpoint.
        lineage: Where it comes from.
        known: Hashes of files, by name, that need not be read again.
    """
    known = known or {}
    files = {
        str(file.relative_to(folder)): known.get(file.name) or sha256(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != RECORD
    }
    record = {"format": FORMAT, "lineage": lineage.model_dump(mode="json"), "files": files}
    (folder / RECORD).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _checked_card(card: Mapping[str, Any] | None) -> dict[str, Any]:
    details = dict(card or {})
    for key in details:
        if key not in CARD_KEYS:
            raise UserError(f"unknown key {key!r} for the model card", fix=nearest(key, CARD_KEYS))
    return details


def _unwrap(model: Any) -> Any:
    for name in ("_orig_mod", "module", "_orig_mod"):  # compiled, in DDP, compiled
        inner = getattr(model, name, None)
        model = inner if hasattr(inner, "save_pretrained") or hasattr(inner, "module") else model
    return model


def _rows(model: Any) -> int:
    return int(model.get_input_embeddings().weight.shape[0])


def _state(
    model: Any, given: Mapping[str, torch.Tensor] | None, dtype: torch.dtype | str | None
) -> dict[str, torch.Tensor]:
    """Weights to store: cast once per storage, so that tied weights stay tied, and finite."""
    import torch

    wanted = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    source = model.state_dict() if given is None else given
    stored: dict[str, torch.Tensor] = {}
    cast: dict[tuple[Any, ...], torch.Tensor] = {}
    for name, tensor in source.items():
        place = (tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        if place not in cast:
            if tensor.is_floating_point() and tensor.numel() and not _is_finite(tensor):
                raise UserError(
                    f"the weights hold NaN or infinite values (in {name}); nothing was saved",
                    fix="lower the learning rate, or go on from the last good checkpoint",
                )
            floats = wanted is not None and tensor.is_floating_point()
            cast[place] = tensor.detach().to(wanted) if floats else tensor.detach()
        stored[name] = cast[place]
    return stored


def _is_finite(tensor: torch.Tensor) -> bool:
    import torch

    if tensor.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        return True  # eight-bit types know no minimum
    low, high = torch.aminmax(tensor.detach())  # carries NaN along, without a temporary mask
    return bool(torch.isfinite(low) and torch.isfinite(high))


def _check_space(out: Path, stored: Mapping[str, torch.Tensor], ids: int) -> None:
    """Refuse before writing what cannot fit: weights, about 100 bytes per token, and some slack."""
    places = {(t.device, t.data_ptr(), t.numel()): t.numel() * t.element_size() for t in stored.values()}
    needed = sum(places.values()) + 100 * ids + _SLACK
    folder = next(p for p in out.absolute().parents if p.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"the disk is full: {needed / 1e6:,.1f} MB are needed and {free / 1e6:,.1f} MB are free",
            where=out,
            fix="free some space; what was there before is intact",
        )


@contextmanager
def _too_large(out: Path) -> Iterator[None]:
    """A limit on file sizes (quota, FAT) is for people the same as a full disk."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        limited = isinstance(error, OSError) and error.errno == errno.EFBIG
        if limited or "os error 27" in str(error):
            raise UserError(
                "the file system refuses a file of this size",
                where=out,
                fix="lower max_shard_size or choose another disk; what was there before is intact",
            ) from error
        raise


def _state_dtype(folder: Path, stored: Mapping[str, torch.Tensor]) -> None:
    """Name the stored type in `config.json` (transformers writes the one in memory)."""
    kinds = [str(t.dtype).removeprefix("torch.") for t in stored.values() if t.is_floating_point()]
    config = read_json(folder / "config.json")
    if kinds and config.get("dtype") != kinds[0]:
        config["dtype"] = kinds[0]
        text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        (folder / "config.json").write_text(text, encoding="utf-8")


def _compare(folder: Path, out: Path, model: Any, stored: Mapping[str, torch.Tensor]) -> None:
    """Open what was written and compare: weights bit for bit, logits (states, without a head) to rounding.

    Where weights were cast, the logits may differ by what the narrower type loses.
    """
    import torch

    config = read_json(folder / "config.json")
    task = task_of(config, where=out, remote=True)
    opener = type(model) if lacks_masked_head(task, list(stored)) else auto_class(task)
    with quiet_transformers(), torch.random.fork_rng(devices=[]):  # a pooler that is not stored is drawn
        if (note := note_of(model)) is not None:
            again = open_form(folder, note, task, dtype=model.dtype)
        else:
            again = opener.from_pretrained(folder, dtype=model.dtype, local_files_only=True).eval()
    read = again.state_dict()
    for name, tensor in stored.items():
        if name in read and not torch.equal(read[name].to(tensor.dtype), tensor.cpu()):
            raise UserError(f"the written {name} reads back with other values; nothing was kept", where=out)
    narrowed = any(t.dtype != p.dtype for t, p in zip(stored.values(), model.state_dict().values()))
    tolerance = 5e-2 if narrowed or model.dtype != torch.float32 else 1e-4
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, _rows(model), (1, 16), generator=generator)
    here, there = _logits(model, ids, task), _logits(again, ids, task)
    worst = float((here - there).abs().max() / here.abs().max().clamp_min(1e-6))
    if not worst <= tolerance:
        raise UserError(
            f"the written model computes other logits (relative difference {worst:.2g}); nothing was kept",
            where=out,
        )


def _logits(model: Any, ids: torch.Tensor, task: str) -> torch.Tensor:
    import torch

    training = model.training
    model.eval()
    ids = ids.to(model.device)
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if task == "seq2seq":
        inputs["decoder_input_ids"] = ids
    with torch.no_grad():
        outputs = model(**inputs)
        logits = getattr(outputs, "logits", outputs[0]).float().cpu()
    model.train(training)
    return torch.as_tensor(logits)
