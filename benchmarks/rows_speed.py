"""Rows of a new vocabulary by WECHSEL and FOCUS: warmstart against the packages `wechsel` and `deepfocus`.

XLM-R scale, given vectors: 250,000 source rows of 768 dimensions, 50,000 target tokens. Measured is what lies
between the token vectors and the finished rows: similarities, weights, mixtures, copies, fallback rows. Not
measured is what both sides leave to tokenizers and to the training of vectors. The peers get tokenizers that
are plain dictionaries, which is faster than real ones.

Each side runs in a process of its own with the same number of threads and the same files. The sides take
turns, so that other work on the machine meets both alike; the table shows medians over the rounds. CPU
seconds show the ratio that is left where the machine is so busy that threads wait. Memory is the process's
peak, and what of it was added after the inputs had been loaded. The rows of both sides are
compared at the end, except those drawn at random.

    pip install 'warmstart[peers]'
    python benchmarks/rows_speed.py                    # minutes; --rounds 3 for medians
    python benchmarks/rows_speed.py --quick            # a tenth of the scale
    python benchmarks/rows_speed.py --peer-python PY   # the peers' packages live in another environment
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

WIDTH = 768


def write_inputs(folder: Path, source: int, target: int, dim: int) -> None:
    """Rows, clustered token vectors and a list of shared tokens, all from one seed.

    Half of the target tokens are shared with the source. Every 50th target token has no vector.
    """
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((5000, dim), dtype=np.float32)

    def vectors(count: int) -> np.ndarray:
        noise = rng.standard_normal((count, dim), dtype=np.float32)
        return centres[rng.integers(0, len(centres), count)] + 1.2 * noise + 0.3

    np.save(folder / "rows.npy", rng.standard_normal((source, WIDTH), dtype=np.float32) * 0.1)
    np.save(folder / "source_vectors.npy", vectors(source))
    there = vectors(target)
    there[::50] = 0
    np.save(folder / "target_vectors.npy", there)
    shared = np.sort(rng.choice(target, target // 2, replace=False))
    pairs = np.stack([shared, rng.choice(source, target // 2, replace=False)], axis=1)
    np.save(folder / "pairs.npy", pairs)


def ours(method: str, data: dict[str, np.ndarray]) -> np.ndarray:
    """Our rows `(V_target, d)`."""
    from warmstart.vocabulary.aux_space import AuxSpace
    from warmstart.vocabulary.rows.focus import anchored_mix
    from warmstart.vocabulary.rows.wechsel import nearest_mix

    rows, pairs = data["rows"], data["pairs"]
    shape = len(data["target_vectors"]), len(rows)
    target = AuxSpace.of(map(str, range(shape[0])), data["target_vectors"])
    if method == "wechsel":
        source = AuxSpace.of(map(str, range(shape[1])), data["source_vectors"])
        mix = nearest_mix(shape, np.arange(shape[0]), source, target)
    else:
        new = np.setdiff1d(np.arange(shape[0]), pairs[:, 0])
        mix = anchored_mix(shape, new, pairs, target).with_copies(pairs)
    return mix.apply(rows, rng=np.random.default_rng(0))


class DictTokenizer:
    """As much of a tokenizer as the peers ask for."""

    special_tokens_map: dict[str, str] = {}

    def __init__(self, size: int) -> None:
        self.tokens = [f"t{i}" for i in range(size)]
        self.vocab = {token: i for i, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        return len(self.tokens)

    def convert_ids_to_tokens(self, ids: Any) -> Any:
        return self.tokens[ids] if np.isscalar(ids) else [self.tokens[i] for i in ids]


def theirs(method: str, data: dict[str, np.ndarray]) -> np.ndarray:
    """The peer's rows `(V_target, d)`, by its own functions."""
    return _wechsel(data) if method == "wechsel" else _focus(data)


def _wechsel(data: dict[str, np.ndarray]) -> np.ndarray:
    import wechsel

    given = iter((data["source_vectors"], data["target_vectors"]))
    # the package fills a float64 matrix, whatever the vectors' type
    wechsel.get_subword_embeddings_in_word_embedding_space = lambda *args, **kw: (
        next(given).astype(np.float64),
        {},
    )
    method = wechsel.WECHSEL.__new__(wechsel.WECHSEL)
    method.source_embeddings = method.target_embeddings = None
    method.source_transform = method.target_transform = lambda matrix: matrix
    source, target = DictTokenizer(len(data["rows"])), DictTokenizer(len(data["target_vectors"]))
    rows, _ = method.apply(source, target, data["rows"])
    return np.asarray(rows)


def _focus(data: dict[str, np.ndarray]) -> np.ndarray:
    import torch
    from deepfocus.focus import focus_additional_token_initialization
    from deepfocus.vocab_helper import NewToken, OverlappingToken, TokenClass

    def token(i: int) -> TokenClass:
        return TokenClass(str(i), i, str(i), str(i), str(i), str(i), True)

    # steps 3 to 6 of its FOCUS(), with the given vectors in place of a fastText model
    vectors, rows = data["target_vectors"], torch.from_numpy(data["rows"])
    known, copied = vectors.any(axis=1), dict(data["pairs"].tolist())
    overlap, new, rare = {}, {}, []
    out = torch.zeros(len(vectors), rows.shape[1])
    for i in range(len(vectors)):
        if i in copied:
            out[i] = rows[copied[i]]
            if known[i]:
                overlap[str(i)] = OverlappingToken([], token(i), rows[copied[i]], vectors[i])
        elif known[i]:
            new[str(i)] = NewToken(token(i), vectors[i])
        else:
            rare.append(i)
    mean, deviation = rows.mean(dim=0), rows.std(dim=0)
    generator = torch.Generator().manual_seed(42)
    for i in rare:
        out[i] = torch.normal(mean, deviation, generator=generator)
    return focus_additional_token_initialization(overlap, new, out, device="cpu").numpy()


def work(side: str, method: str, folder: Path) -> None:
    """A side's process: one run per line on stdin, one JSON line per run on stdout."""
    results, sys.stdout = sys.stdout, sys.stderr  # the peers print
    data = {path.stem: np.load(path) for path in folder.glob("*.npy") if "result" not in path.stem}
    _import(side, method)
    before = _peak()
    for _ in sys.stdin:
        begin, worked = time.perf_counter(), time.process_time()
        rows = (ours if side == "ours" else theirs)(method, data)
        seconds, cpu = time.perf_counter() - begin, time.process_time() - worked
        np.save(folder / f"result-{side}.npy", rows)
        print(
            json.dumps({"seconds": seconds, "cpu": cpu, "peak": _peak(), "before": before}),
            file=results,
            flush=True,
        )


def _import(side: str, method: str) -> None:
    """Load the libraries, and compile what compiles on first use, outside of the measured time."""
    tiny = {
        "rows": np.ones((40, 4), np.float32),
        "pairs": np.array([[0, 0], [1, 1]]),
        "source_vectors": np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32),
        "target_vectors": np.random.default_rng(1).standard_normal((8, 4)).astype(np.float32),
    }
    if side == "theirs":
        _stand_in_for_fasttext()
    (ours if side == "ours" else theirs)(method, tiny)


def _stand_in_for_fasttext() -> None:
    """The peers import fastText, which often fails to build; with given vectors nothing calls it."""
    import types

    try:
        importlib.import_module("fasttext.util")
    except ImportError:
        package, util, inner = (
            types.ModuleType(n) for n in ("fasttext", "fasttext.util", "fasttext.FastText")
        )
        inner._FastText = type("_FastText", (), {})  # type: ignore[attr-defined]
        package.util, package.FastText = util, inner  # type: ignore[attr-defined]
        sys.modules.update({"fasttext": package, "fasttext.util": util, "fasttext.FastText": inner})


def _peak() -> float:
    """Peak resident memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(method: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run both sides in turns."""
    environment = {**os.environ, "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        environment[name] = str(options.threads)
    pythons = {"ours": sys.executable, "theirs": options.peer_python}
    runs: dict[str, list[dict[str, float]]] = {"ours": [], "theirs": []}
    processes: dict[str, subprocess.Popen[str]] = {}
    try:
        for _ in range(options.rounds):
            for side, python in pythons.items():
                if side not in processes:
                    processes[side] = subprocess.Popen(
                        [python, __file__, "--side", side, "--method", method, "--folder", str(folder)],
                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True,
                        stderr=subprocess.DEVNULL if not options.verbose else None,
                    )  # fmt: skip
                process = processes[side]
                assert process.stdin and process.stdout
                process.stdin.write("run\n")
                process.stdin.flush()
                line = process.stdout.readline()
                if not line:
                    sys.exit(
                        f"the side {side!r} of {method} ended without a result; run again with --verbose"
                    )
                runs[side].append(json.loads(line))
    finally:
        for process in processes.values():
            assert process.stdin
            process.stdin.close()
            process.wait()
    a, b = (np.load(folder / f"result-{side}.npy") for side in ("ours", "theirs"))
    known = np.load(folder / "target_vectors.npy").any(axis=1)
    compared = known.copy()
    if method == "focus":
        compared[np.load(folder / "pairs.npy")[:, 0]] = True
    gap = np.abs(a[compared] - b[compared]).max(axis=1)
    pairs = list(zip(runs["ours"], runs["theirs"]))

    def ratio(key: str) -> float:
        return round(statistics.median(b[key] / a[key] for a, b in pairs), 1)

    return {
        "method": method,
        "seconds": {side: [round(run["seconds"], 2) for run in runs[side]] for side in runs},
        "median": {side: round(statistics.median(r["seconds"] for r in runs[side]), 2) for side in runs},
        "cpu_seconds": {side: round(statistics.median(r["cpu"] for r in runs[side]), 2) for side in runs},
        "ratio": ratio("seconds"),
        "cpu_ratio": ratio("cpu"),
        "peak_mib": {side: round(max(run["peak"] for run in runs[side])) for side in runs},
        "added_mib": {side: round(max(run["peak"] - run["before"] for run in runs[side])) for side in runs},
        "rows_compared": int(compared.sum()),
        "max_difference": float(gap.max()),
        "rows_over_1e-5": int((gap > 1e-5).sum()),
    }


def _table(result: dict[str, Any], options: argparse.Namespace) -> str:
    scale = (
        f"{options.source:,} x {WIDTH} source rows, {options.target:,} target tokens, {options.dim}-d vectors"
    )
    lines = [f"{result['method']}: {scale}, {options.threads} threads, {options.rounds} rounds"]
    names = {
        "median": "seconds",
        "cpu_seconds": "CPU seconds",
        "peak_mib": "peak MiB",
        "added_mib": "added MiB",
    }
    ratios = {"median": result["ratio"], "cpu_seconds": result["cpu_ratio"]}
    for key, name in names.items():
        pair = result[key]
        more = f"   ratio {ratios[key]}" if key in ratios else ""
        lines.append(f"  {name:<12} ours {pair['ours']:>8}   theirs {pair['theirs']:>8}{more}")
    gap, far = result["max_difference"], result["rows_over_1e-5"]
    lines.append(
        f"  {result['rows_compared']:,} rows compared: largest difference {gap:.2g}, {far} beyond 1e-5"
    )
    return "\n".join(lines)


def main() -> None:
    """Parse options, run, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=int, default=250_000, help="source tokens")
    parser.add_argument("--target", type=int, default=50_000, help="target tokens")
    parser.add_argument("--dim", type=int, default=300, help="dimensions of the given vectors")
    parser.add_argument("--rounds", type=int, default=1, help="pairs of runs")
    parser.add_argument("--threads", type=int, default=2, help="threads of each side")
    parser.add_argument("--methods", nargs="+", default=["wechsel", "focus"], choices=["wechsel", "focus"])
    parser.add_argument("--quick", action="store_true", help="a tenth of the scale")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter that has the peers")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument("--verbose", action="store_true", help="show what the sides print")
    for hidden in ("--side", "--method", "--folder"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        work(options.side, options.method, Path(options.folder))
        return
    if options.quick:
        options.source, options.target = options.source // 10, options.target // 10
    results = []
    with tempfile.TemporaryDirectory(prefix="rows-speed-") as temporary:
        write_inputs(Path(temporary), options.source, options.target, options.dim)
        for method in options.methods:
            result = measure(method, Path(temporary), options)
            results.append(result)
            if not options.json:
                print(_table(result, options), flush=True)
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
