"""Convert a checkpoint with pickled weights to safetensors: `python -m warmstart.checkpoint.convert IN OUT`.

Unpickling can run code, so it happens in a child process: `torch.load(weights_only=True)`, which admits
tensors only, under limits of memory, time and file size, with an empty environment,
an empty working folder and, where the system allows it, without network and further processes. The parent
never unpickles; it reads only the safetensors file that the child wrote, and checks it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from warmstart.checkpoint.handle import Checkpoint
from warmstart.checkpoint.headers import INDEX, SINGLE, read_header, read_json
from warmstart.checkpoint.lineage import Lineage, Parent
from warmstart.checkpoint.save import write_record
from warmstart.checkpoint.sources import resolve
from warmstart.checkpoint.verify import check_remote_code, pickled_weights, read_config, verify
from warmstart.foundation.errors import UserError
from warmstart.foundation.files import atomic_folder, sha256
from warmstart.foundation.settings import digest

SECONDS = 1800
_KEPT = (".json", ".txt", ".model", ".jinja", ".md")
_PICKLED_INDEX = "pytorch_model.bin.index.json"


def convert(source: Path, out: Path, *, seconds: int = SECONDS, replace: bool = False) -> Checkpoint:
    """Write a safetensors copy of a folder whose weights are pickled.

    Args:
        source: Folder with `config.json` and `pytorch_model.bin` (or its shards).
        out: Folder to create: weights, configuration, tokenizer and a lineage record.
        seconds: Processor time after which a file is given up.
        replace: Whether an existing `out` may be replaced.

    Raises:
        UserError: When the pickle holds anything but tensors, breaks a limit, or is no checkpoint.
    """
    config = read_config(source)
    check_remote_code(source, config, False)
    files = _weights(source)
    tied = config.get("tie_word_embeddings") is not False
    with atomic_folder(out, replace=replace) as folder:
        for number, name in enumerate(files, 1):
            target = SINGLE if len(files) == 1 else f"model-{number:05d}-of-{len(files):05d}.safetensors"
            _in_sandbox(source / name, folder / target, tied, seconds)
        if len(files) > 1:
            _write_index(folder)
        for file in source.iterdir():
            if file.suffix in _KEPT and file.name not in (_PICKLED_INDEX, INDEX, "warmstart.json"):
                shutil.copyfile(file, folder / file.name)
        hashes = {name: sha256(source / name) for name in files}
        parent = Parent(name=source.absolute().name, fingerprint=digest(hashes))
        write_record(folder, Lineage.of("convert", {"files": hashes}, parents=[parent]))
        verify(folder)  # before it takes its place: what cannot be used is not kept
    return resolve(out, scan=False)


def _weights(source: Path) -> list[str]:
    if (source / _PICKLED_INDEX).is_file():
        table = read_json(source / _PICKLED_INDEX).get("weight_map")
        names = sorted(set(table.values())) if isinstance(table, dict) else []
        missing = [n for n in names if Path(n).name != n or not (source / n).is_file()]
        if not names or missing:
            raise UserError(f"shards are missing: {', '.join(missing) or 'all'}", where=source)
        return names
    names = pickled_weights(source)
    if "pytorch_model.bin" in names:
        return ["pytorch_model.bin"]
    if len(names) != 1:
        found = ", ".join(names) or "none"
        raise UserError(
            f"one file of pickled weights was expected, found {found}", where=source, fix="keep the right one"
        )
    return names


def _write_index(folder: Path) -> None:
    shards = sorted(folder.glob("model-*.safetensors"))
    headers = {file.name: read_header(file) for file in shards}
    total = sum(t.nbytes for tensors in headers.values() for t in tensors.values())
    table = {tensor: name for name, tensors in headers.items() for tensor in tensors}
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(table.items()))}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _in_sandbox(pickled: Path, target: Path, tied: bool, seconds: int) -> None:
    """One file through the child; whatever goes wrong there becomes one sentence here."""
    limits = {"bytes": pickled.stat().st_size, "seconds": seconds}
    order = [str(pickled.absolute()), str(target.absolute()), json.dumps(limits), str(int(tied))]
    script = Path(__file__).with_name("_unpickle.py")
    with tempfile.TemporaryDirectory() as empty:
        try:
            child = subprocess.run(
                [sys.executable, "-I", "-B", str(script), *order],
                cwd=empty,
                env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": empty},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=4 * seconds,
            )
        except subprocess.TimeoutExpired:
            raise UserError("converting took too long and was stopped", where=pickled) from None
    if child.returncode != 0:
        lines = [line for line in child.stderr.splitlines() if line.strip()]
        reason = lines[-1][:300] if lines else f"the process ended with code {child.returncode}"
        raise UserError(
            f"the pickled weights were not converted ({reason})",
            where=pickled,
            fix="take the model's safetensors from its authors",
        )


def main(arguments: list[str] | None = None) -> int:
    """Command line: `python -m warmstart.checkpoint.convert IN OUT`; exit code 2 for bad input."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="python -m warmstart.checkpoint.convert",
        description="Convert pickled weights to safetensors in a sandboxed process.",
    )
    parser.add_argument("source", type=Path, help="folder with config.json and pickled weights")
    parser.add_argument("out", type=Path, help="folder to create")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="limit of processor time per file")
    parser.add_argument("--replace", action="store_true", help="replace OUT if it exists")
    given: Any = parser.parse_args(arguments)
    try:
        made = convert(given.source, given.out, seconds=given.seconds, replace=given.replace)
    except UserError as error:
        print(f"error: {error.sentence}", file=sys.stderr)
        return error.exit_code
    print(f"{made.family} ({made.task}), {len(made.tensors)} tensors → {os.fspath(given.out)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
