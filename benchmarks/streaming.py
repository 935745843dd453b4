"""Surgery on large stored checkpoints: throughput as a share of a plain copy, peak memory, and mergekit
beside it.

Two Llama checkpoints of the shape of 7B are drawn in bfloat16 (32 layers, 13.5 GB each), or with as many
layers as leave room on the disk for six times their size. Then, each in a process of its own, in this order
and on the same disk:

- copy: the files of one checkpoint are copied and synced; what follows is told as a share of this rate, by
  the bytes that are written.
- merge: linear, and with `--methods` others, of both; and the same by mergekit, if it is installed.
- grow: by a quarter more layers (8 of 32) that are the identity.
- upcycle: to a mixture of four experts, about three times as large.

With `--cold` the page cache is emptied before each run, where the system allows it: reading is then part of
the time. Without it, files that were just written are often still in memory.

    python benchmarks/streaming.py --folder /a/large/disk
    python benchmarks/streaming.py --layers 4 --methods linear ties --cold
    python benchmarks/streaming.py --peer PATH_TO/mergekit-yaml   # mergekit lives in another environment
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

HIDDEN, UNITS, VOCABULARY, HEADS, LAYERS = 4096, 11008, 32000, 32, 32


def config(layers: int) -> dict[str, Any]:
    """A Llama's `config.json`."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": UNITS,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "head_dim": HIDDEN // HEADS,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def draw(folder: Path, layers: int, seed: int) -> int:
    """Write a checkpoint of random weights; returns its bytes."""
    import torch

    from warmstart.anatomy import anatomy_of
    from warmstart.checkpoint.shards import Planned, shards_of, write_shards

    folder.mkdir(parents=True)
    anatomy = anatomy_of(config(layers))
    specs = {n: s for n, s in anatomy.tensors.items() if s.unit in ("body", "head")}
    rng = np.random.default_rng(seed)
    pool = torch.from_numpy(rng.standard_normal(1 << 22, dtype=np.float32) * 0.02).to(torch.bfloat16)

    def produce(name: str) -> Any:
        left = specs[name].size
        while left:  # one pool, begun anew at a random place: drawing would take longer than all the rest
            start = int(rng.integers(0, len(pool) - 1))
            piece = pool[start : start + left]
            left -= len(piece)
            yield piece

    plan = [Planned(name, "BF16", spec.shape) for name, spec in specs.items()]
    write_shards(folder, shards_of(plan, "2GB"), produce)
    (folder / "config.json").write_text(json.dumps(config(layers)))
    return sum(tensor.nbytes for tensor in plan)


def size_of(layers: int) -> int:
    """Bytes of a checkpoint."""
    block = 4 * HIDDEN**2 + 3 * HIDDEN * UNITS + 2 * HIDDEN
    return 2 * (layers * block + 2 * VOCABULARY * HIDDEN + HIDDEN)


def empty_cache() -> None:
    """Forget what files hold, so that they are read from the disk."""
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        sys.exit("the system does not let this user empty the page cache; leave --cold out")


def run(command: list[str], environment: dict[str, str], cold: bool) -> tuple[float, float]:
    """Seconds until all is on the disk, and peak MiB."""
    os.sync()
    if cold:
        empty_cache()
    start = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        _, status, usage = os.wait4(child.pid, 0)
        os.sync()
        seconds = time.perf_counter() - start
        if status:
            log.seek(0)
            sys.exit(f"{' '.join(command)}\n{log.read().decode(errors='replace')[-3000:]}")
    return seconds, usage.ru_maxrss / 1024


def main() -> None:
    """Draw, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, help="where to work; the system's temporary folder by default")
    parser.add_argument("--layers", type=int, help=f"layers; {LAYERS}, or as many as the disk holds")
    parser.add_argument("--methods", nargs="+", default=["linear"], help="ways to merge")
    parser.add_argument("--cold", action="store_true", help="empty the page cache before each run")
    parser.add_argument("--peer", default=shutil.which("mergekit-yaml"), help="mergekit's command")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="streaming-", dir=options.folder) as name:
        measure(Path(name), options)


def measure(folder: Path, options: argparse.Namespace) -> None:
    """All runs in one folder."""
    free = shutil.disk_usage(folder).free - (2 << 30)
    layers = options.layers or next(n for n in range(LAYERS, 0, -1) if 6 * size_of(n) < free or n == 1)
    size = draw(folder / "a", layers, 0)
    draw(folder / "b", layers, 1)
    state = "emptied before each run" if options.cold else "as it is"
    print(f"Llama of {layers} layers, {size / 1e9:.1f} GB in bfloat16; page cache {state}")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    copy = [sys.executable, "-c", "import shutil, sys; shutil.copytree(sys.argv[1], sys.argv[2])"]
    seconds, _ = run([*copy, str(folder / "a"), str(folder / "copy")], environment, options.cold)
    rate = size / seconds
    print(f"{'plain copy':24} {seconds:8.1f} s  {rate / 1e6:7.0f} MB/s")
    shutil.rmtree(folder / "copy")
    ours = [str(Path(sys.executable).with_name("warmstart"))]

    def show(label: str, command: list[str]) -> float:
        seconds, peak = run(command, environment, options.cold)
        made = sum(file.stat().st_size for file in (folder / "out").glob("*.safetensors"))
        print(
            f"{label:24} {seconds:8.1f} s  {made / seconds / 1e6:7.0f} MB/s  "
            f"{made / seconds / rate:5.0%} of the copy  peak {peak:6.0f} MiB"
        )
        shutil.rmtree(folder / "out")
        return seconds

    pair = f"{folder / 'a'},{folder / 'b'}"
    for method in options.methods:
        base = ["--base-model", str(folder / "a")] if method not in ("linear", "slerp") else []
        words = ["merge", "--models", pair, "--merge-method", method, *base, "-o", str(folder / "out")]
        mine = show(f"merge {method}", [*ours, *words])
        if options.peer:
            (folder / "merge.yml").write_text(peer_file(folder, method))
            theirs = show(
                f"mergekit {method}", [options.peer, str(folder / "merge.yml"), str(folder / "out")]
            )
            print(f"{'':24} ratio {theirs / mine:.2f}")
    words = ["grow", str(folder / "a"), "--to", f"{{num_hidden_layers: {layers + max(1, layers // 4)}}}"]
    show("grow by a quarter", [*ours, *words, "-o", str(folder / "out")])
    words = ["upcycle", str(folder / "a"), "--experts", "4", "-o", str(folder / "out")]
    show("upcycle to 4 experts", [*ours, *words])
    print(f"this process itself: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def peer_file(folder: Path, method: str) -> str:
    """mergekit's recipe of the same merge."""
    entry = "  - model: {}\n    parameters: {{weight: 1.0, density: 0.2}}\n"
    text = f"merge_method: {method.replace('-', '_')}\ndtype: bfloat16\nmodels:\n"
    text += entry.format(folder / "a") + entry.format(folder / "b")
    if method == "slerp":
        text += f"base_model: {folder / 'a'}\nparameters: {{t: 0.5}}\n"
    elif method != "linear":
        text += f"base_model: {folder / 'a'}\n"
    return text


if __name__ == "__main__":
    main()
