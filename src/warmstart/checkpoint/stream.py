"""From checkpoint to checkpoint tensor by tensor, without ever building a model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmstart.checkpoint import tokens
from warmstart.checkpoint.handle import Checkpoint
from warmstart.checkpoint.headers import read_headers
from warmstart.checkpoint.save import write_card, write_record
from warmstart.checkpoint.shards import Planned, shards_of, write_shards
from warmstart.foundation.errors import UserError
from warmstart.foundation.files import atomic_folder
from warmstart.foundation.settings import digest

if TYPE_CHECKING:
    import torch

    from warmstart.checkpoint.lineage import Lineage

_COPIED = (*tokens.FILES, "generation_config.json")
_SLACK = 64 << 20


def stream_checkpoint(
    out: Path,
    source: Checkpoint,
    tensors: Sequence[Planned],
    produce: Callable[[str], torch.Tensor | Iterable[torch.Tensor]],
    *,
    config: Mapping[str, Any],
    lineage: Lineage,
    card: Mapping[str, Any] | None = None,
    replace: bool = False,
    max_shard_size: str | int = "5GB",
) -> Checkpoint:
    """Write a checkpoint whose tensors are made one after another.

    Shards that are finished stay when the writing is interrupted; the same call goes on behind them. The disk
    is asked for all of it before the first byte.

    Args:
        out: Folder to create.
        source: Checkpoint whose tokenizer and generation settings go along.
        tensors: Everything that will be stored, in order.
        produce: Name to tensor, or to consecutive flattened pieces of it.
        config: The new `config.json`.
        lineage: Where it comes from.
        card: What only a person knows, as for `save_checkpoint`.
        replace: Whether an existing `out` may be replaced.
        max_shard_size: Largest file; a tensor is never split.

    Raises:
        UserError: An existing folder, a disk that is too small, or one that fills up.
    """
    shards = shards_of(tensors, max_shard_size)
    key = digest([[list(t) for shard in shards for t in shard.tensors], lineage.identity, dict(config)])
    with atomic_folder(out, replace=replace, unfinished=key) as folder:
        _check_space(out, folder, sum(tensor.nbytes for tensor in tensors))
        hashes = write_shards(folder, shards, produce)
        text = json.dumps(dict(config), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        (folder / "config.json").write_text(text, encoding="utf-8")
        for name in _COPIED:
            if (source.path / name).is_file():
                shutil.copyfile(source.path / name, folder / name)
        architecture = next(iter(config.get("architectures") or ()), "AutoModel")
        write_card(folder, out, config, architecture, lineage, dict(card or {}))
        write_record(folder, lineage, known=hashes)
    return Checkpoint(out, dict(config), read_headers(out))


def _check_space(out: Path, folder: Path, needed: int) -> None:
    needed += _SLACK - sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"the disk is too small: {needed / 1e9:,.1f} GB are needed and {free / 1e9:,.1f} GB are free",
            where=out,
            fix="free some space, choose another disk, or a smaller model",
        )
