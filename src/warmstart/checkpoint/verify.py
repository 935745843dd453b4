"""Checks of a folder before anything in it is used, cheapest first; what was checked is remembered.

Order: files and formats, remote code, structure of every shard, index against shards, tokenizer against
rows, recorded hashes, finite values. Nothing is unpickled or executed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from warmstart.checkpoint import stamps
from warmstart.checkpoint.architecture import task_of, vocabulary_rows
from warmstart.checkpoint.headers import TensorHeader, read_headers, read_json, weight_files
from warmstart.checkpoint.lineage import expected_hashes
from warmstart.checkpoint.tokens import check_ids
from warmstart.foundation.errors import UserError

PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_FOREIGN = {".h5": "TensorFlow", ".msgpack": "Flax", ".gguf": "GGUF", ".onnx": "ONNX"}
# state that trainers leave beside the weights: pickled, never read here
_BESIDE = ("optimizer", "scheduler", "rng_state", "training_args", "scaler", "random_states", "args")
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Verified:
    """What the checks found out.

    Attributes:
        config: The parsed `config.json`.
        tensors: Stored tensors by name.
        warnings: Sentences about what is odd but no reason to refuse.
    """

    config: dict[str, Any]
    tensors: dict[str, TensorHeader]
    warnings: tuple[str, ...]


def verify(
    folder: Path, *, trust_remote_code: bool = False, hashes: bool = True, scan: bool = True, hub: str = ""
) -> Verified:
    """Check a checkpoint's folder.

    Args:
        folder: The folder.
        trust_remote_code: Whether code in the folder may run later.
        hashes: Compare files to their recorded SHA-256.
        scan: Look for NaN and infinite weights.
        hub: Hub id the folder came from, for the message about missing safetensors.

    Raises:
        UserError: With what is wrong, in which file, and how to mend it.
    """
    config = read_config(folder)
    check_remote_code(folder, config, trust_remote_code)
    check_formats(folder, hub)
    task_of(config, where=folder, remote=trust_remote_code)
    tensors = read_headers(folder)
    check_ids(folder, vocabulary_rows(config, {name: t.shape for name, t in tensors.items()}))
    warnings = check_hashes(folder) if hashes else []
    if scan:
        check_finite(folder, tensors)
    return Verified(config, tensors, tuple(warnings))


def read_config(folder: Path) -> dict[str, Any]:
    """The parsed `config.json`, or why the folder is no checkpoint."""
    if not folder.is_dir():
        kind = "is a file" if folder.is_file() else "does not exist"
        raise UserError(f"the checkpoint folder {kind}", where=folder, fix="give the folder of a model")
    if not any(folder.iterdir()):
        raise UserError("the checkpoint folder is empty", where=folder, fix="give the folder of a model")
    if not (folder / "config.json").is_file():
        inner = sorted(p.parent.relative_to(folder) for p in folder.glob("*/config.json"))
        inner += sorted(p.parent.relative_to(folder) for p in folder.glob("*/*/config.json"))
        if (folder / "adapter_config.json").is_file():
            raise UserError(
                "this is an adapter, not a model", where=folder, fix="merge it into its base first"
            )
        fix = f"did you mean {folder / inner[-1]}?" if inner else "give the folder of a model"
        raise UserError("the folder has no config.json", where=folder, fix=fix)
    return read_json(folder / "config.json")


def remote_code(folder: Path, config: Mapping[str, Any]) -> list[str]:
    """What in the folder would be executed by a loader that trusts it."""
    found = sorted(p.name for p in folder.glob("*.py"))
    if config.get("auto_map"):
        found.append("auto_map in config.json")
    settings = folder / "tokenizer_config.json"
    if settings.is_file() and read_json(settings).get("auto_map"):
        found.append("auto_map in tokenizer_config.json")
    return found


def check_remote_code(folder: Path, config: Mapping[str, Any], trusted: bool) -> None:
    """Refuse a checkpoint that brings code, unless the person trusts it."""
    code = remote_code(folder, config)
    if code and not trusted:
        raise UserError(
            f"the checkpoint wants to run its own code ({', '.join(code)})",
            where=folder,
            fix="read that code, and give --trust-remote-code if you trust it",
        )


def pickled_files(folder: Path) -> list[str]:
    """Names of the pickled files in a folder, weights and others."""
    return sorted(p.name for p in folder.iterdir() if p.suffix in PICKLED and p.is_file())


def pickled_weights(folder: Path) -> list[str]:
    """Names of the pickled files that hold weights rather than a trainer's state."""
    return [name for name in pickled_files(folder) if not name.startswith(_BESIDE)]


def check_formats(folder: Path, hub: str = "") -> None:
    """Refuse folders without safetensors, with the way to get them."""
    if weight_files(folder):
        return
    if (names := pickled_weights(folder)) or hub:
        source = f"the weights are pickled ({names[0]})" if names else "the hub model has no safetensors"
        command = "python -m warmstart.checkpoint.convert"
        fetch = f"`hf download {hub} --local-dir IN`, then " if hub else ""
        raise UserError(
            f"{source}, and opening pickled weights can run any code",
            where=hub or folder,
            fix=f"convert in a sandboxed process: {fetch}`{command} {'IN' if hub else folder} OUT`",
        )
    foreign = [f"{p.name} ({_FOREIGN[p.suffix]})" for p in folder.iterdir() if p.suffix in _FOREIGN]
    stray = sorted(p.name for p in folder.glob("*.safetensors"))
    found = f"only {foreign[0]}" if foreign else f"only {stray[0]}" if stray else "none"
    raise UserError(
        f"no weights as model.safetensors or shards with an index, found {found}",
        where=folder,
        fix="fetch the model's safetensors files",
    )


def check_hashes(folder: Path) -> list[str]:
    """Compare files with their recorded SHA-256.

    Returns:
        Warnings about files that a person may have edited (configuration, tokenizer settings).

    Raises:
        UserError: When a weight file or `tokenizer.json` is not the one that was written.
    """
    warnings: list[str] = []
    known = stamps.Stamps(folder)
    for name, expected in sorted(expected_hashes(folder).items()):
        file = folder / name
        vital = file.suffix == ".safetensors" or name == "tokenizer.json"
        if name == "README.md" or (not file.is_file() and not vital):
            continue
        if not file.is_file():
            raise UserError(f"{name} is missing, and was written with this checkpoint", where=folder)
        if known.sha256(file) == expected:
            continue
        if vital:
            raise UserError(
                f"{name} is not the file that was written here: its SHA-256 differs (damaged or swapped?)",
                where=folder,
                fix="copy the checkpoint again from where it was made",
            )
        warnings.append(f"{name} was changed after it was written")
    known.save()
    return warnings


def check_finite(folder: Path, tensors: Mapping[str, TensorHeader]) -> None:
    """Refuse weights with NaN or infinite values: one tensor at a time, mapped, in pieces of 4M elements."""
    known = stamps.Stamps(folder)
    by_file: dict[Path, list[tuple[str, TensorHeader]]] = {}
    for name, tensor in tensors.items():
        by_file.setdefault(tensor.file, []).append((name, tensor))
    for file, entries in by_file.items():
        if known.finite(file):
            continue
        for name, tensor in sorted(entries, key=lambda entry: entry[1].begin):
            if not _finite(tensor):
                raise UserError(
                    f"the tensor {name} holds NaN or infinite values",
                    where=file,
                    fix="take an earlier checkpoint: this one was damaged or diverged in training",
                )
        known.mark_finite(file)
    known.save()


# integer view, exponent bits: a value is not finite exactly when all of them are set
_BIT_PATTERNS: dict[str, tuple[Any, int]] = {
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
    "F8_E5M2": (np.uint8, 0x7C),
}
_FLOATS: dict[str, Any] = {"F32": np.float32, "F64": np.float64}


def _finite(tensor: TensorHeader) -> bool:
    if not tensor.nbytes:
        return True
    if tensor.dtype in _FLOATS:
        kind: Any = _FLOATS[tensor.dtype]
    elif tensor.dtype in _BIT_PATTERNS:
        kind = _BIT_PATTERNS[tensor.dtype][0]
    elif tensor.dtype == "F8_E4M3":
        kind = np.uint8
    else:
        return True
    with tensor.file.open("rb") as stream:
        stream.seek(tensor.begin)
        left = tensor.numel
        while left:
            chunk = np.fromfile(stream, dtype=kind, count=min(left, _CHUNK))
            left -= chunk.size
            if not _finite_chunk(chunk, tensor.dtype):
                return False
    return True


def _finite_chunk(chunk: np.ndarray, dtype: str) -> bool:
    if dtype in _FLOATS:  # minimum and maximum carry NaN along and need no temporary array
        return bool(np.isfinite(chunk.min()) and np.isfinite(chunk.max()))
    if dtype == "F8_E4M3":  # no infinity; NaN is all ones below the sign
        return not bool(((chunk & 0x7F) == 0x7F).any())
    bits = _BIT_PATTERNS[dtype][1]
    largest_finite = bits - 1
    sign_free = int(np.iinfo(chunk.dtype).max) >> 1
    return int((chunk & chunk.dtype.type(sign_free)).max()) <= largest_finite
