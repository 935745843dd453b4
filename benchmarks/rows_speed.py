"""Rows of a new vocabulary: warmstart against `wechsel`, `deepfocus` and mergekit's token surgeon.

250,000 source rows of 1,024 dimensions and 64,000 target tokens, half of them shared. Measured is what lies
between the inputs (token vectors of 300 dimensions; for OMP and CLP a donor's rows of 512) and the finished
rows: similarities, weights, mixtures, copies, fallback rows. Not measured is what both sides leave to
tokenizers, to checkpoints and to the training of vectors. The peers get tokenizers that are plain
dictionaries, which is faster than real ones.

Each side runs in a process of its own with the same number of threads and the same files. The sides take
turns, so that other work on the machine meets both alike; the table shows medians over the rounds. CPU
seconds show the ratio that is left where the machine is so busy that threads wait. Memory is the process's
peak: what of it was added after the inputs had been loaded, and what lies beyond the two matrices (source
rows and target rows), which counts interpreter, libraries and given vectors and should stay within 3 GiB.

The rows of both sides are compared at the end, except those drawn at random:

- wechsel, focus: all of them, to 1e-5.
- omp: the peer's method is ours with `atoms: raw` and `tolerance: 0`, k = 64 on both sides; rows are
  compared to 1e-3 of their length, since the peer computes in float32. Where two atoms are nearly equally
  good, rounding decides between them, and the steps after it differ: such rows lie further apart. So the
  table also states how much of the donor's rows either side fails to rebuild, on average.
- clp: the peer's `common_interpolation` by cosine with k neighbours is ours with `top_k`, as long as all k
  cosines are positive; to 1e-5. Where the last neighbour and the next are equally near to float32 precision,
  the peer may take the other. (Without k it would gather every shared row for every new one.)

A peer that is not installed is left out, and the table says so. Two of them want fastText, which often
fails to build; they then go in with `--no-deps`, and their other needs by hand.

    pip install -c constraints.txt '.[peers]'
    python benchmarks/rows_speed.py                      # half an hour, nearly all of it OMP
    python benchmarks/rows_speed.py --methods wechsel focus clp --rounds 3
    python benchmarks/rows_speed.py --quick              # a tenth of the tokens on both sides
    python benchmarks/rows_speed.py --peer-python PY     # the peers live in another environment
    python benchmarks/rows_speed.py --peer-python PY --mergekit-python PY2   # mergekit in a third
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rows_inputs import NEEDS, write_inputs

SIDES = ("ours", "theirs")
LIMIT_MIB = 3 * 1024
TOLERANCE = {"wechsel": 1e-5, "focus": 1e-5, "omp": 1e-3, "clp": 1e-5}
"""Largest difference of a row that counts as equal; of `omp` as a share of the row's length."""


def measure(method: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run both sides in turns, or ours alone where the peer is missing."""
    runs: dict[str, list[dict[str, float]]] = {}
    packages: dict[str, str] = {}
    missing = None
    processes: dict[str, subprocess.Popen[str]] = {}
    try:
        for side in SIDES:
            processes[side] = _start(side, method, folder, options)
            hello = _line(processes[side], side, method)
            if "missing" in hello and side == "theirs":
                missing = hello["missing"]
                processes.pop(side).communicate()
                continue
            if "missing" in hello:
                sys.exit(f"warmstart cannot be imported: {hello['missing']}")
            packages[side], runs[side] = hello["package"], []
        for _ in range(options.rounds):
            for side, process in processes.items():
                assert process.stdin
                process.stdin.write("run\n")
                process.stdin.flush()
                runs[side].append(_line(process, side, method))
    finally:
        for process in processes.values():
            process.communicate()
    matrices = 4 * (options.source + options.target) * options.width / 2**20
    peak = {side: max(run["peak"] for run in runs[side]) for side in runs}
    result = {
        "method": method,
        "packages": packages,
        "missing": missing,
        "seconds": {side: [round(run["seconds"], 2) for run in runs[side]] for side in runs},
        "median": {side: round(statistics.median(r["seconds"] for r in runs[side]), 2) for side in runs},
        "cpu_seconds": {side: round(statistics.median(r["cpu"] for r in runs[side]), 2) for side in runs},
        "peak_mib": {side: round(peak[side]) for side in runs},
        "added_mib": {side: round(max(run["peak"] - run["before"] for run in runs[side])) for side in runs},
        "beyond_mib": {side: round(peak[side] - matrices) for side in runs},
        "within_3_gib": {side: peak[side] - matrices <= LIMIT_MIB for side in runs},
    }
    if missing is None:
        pairs = list(zip(runs["ours"], runs["theirs"]))
        for name, key in (("ratio", "seconds"), ("cpu_ratio", "cpu")):
            result[name] = round(statistics.median(b[key] / max(a[key], 1e-9) for a, b in pairs), 2)
        data = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in NEEDS[method]}
        rows = [np.load(folder / f"result-{side}.npy", mmap_mode="r") for side in SIDES]
        result |= compare(method, data, *rows)
    return result


def _start(side: str, method: str, folder: Path, options: argparse.Namespace) -> subprocess.Popen[str]:
    environment = {**os.environ, "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        environment[name] = str(options.threads)
    peer = options.peer_python if method in ("wechsel", "focus") else options.mergekit_python
    python = sys.executable if side == "ours" else peer or options.peer_python
    script = str(Path(__file__).with_name("rows_sides.py"))
    return subprocess.Popen(
        [python, script, side, method, str(folder), str(options.k)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True,
        stderr=subprocess.DEVNULL if not options.verbose else None,
    )  # fmt: skip


def _line(process: subprocess.Popen[str], side: str, method: str) -> dict[str, Any]:
    assert process.stdout
    line = process.stdout.readline()
    if not line:
        sys.exit(f"the side {side!r} of {method} ended without a result; run again with --verbose")
    found: dict[str, Any] = json.loads(line)
    return found


def compare(
    method: str, data: dict[str, np.ndarray], ours: np.ndarray, theirs: np.ndarray
) -> dict[str, float | int]:
    """How far apart the rows `(V_target, d)` of the two sides are, those drawn at random left out.

    Returns:
        `rows_compared`, their `max_difference` and how many are `rows_beyond` the tolerance; of `omp` the
        difference is a share of our row's length, and `unbuilt_ours` and `unbuilt_theirs` are the share of a
        new token's donor row that was not rebuilt, on average.
    """
    compared = np.ones(len(ours), dtype=bool)
    if "target_vectors" in NEEDS[method]:
        compared = np.asarray(data["target_vectors"].any(axis=1))
    if method == "focus":
        compared[data["pairs"][:, 0]] = True
    ids = np.flatnonzero(compared)
    gap = np.empty(len(ids))
    for start in range(0, len(ids), 4096):
        part = ids[start : start + 4096]
        a, b = (np.asarray(rows[part], dtype=np.float64) for rows in (ours, theirs))
        gap[start : start + 4096] = (
            _length(a - b) / np.maximum(_length(a), 1e-12) if method == "omp" else np.abs(a - b).max(axis=1)
        )
    result: dict[str, float | int] = {
        "rows_compared": len(ids),
        "max_difference": float(gap.max()),
        "rows_beyond": int((gap > TOLERANCE[method]).sum()),
    }
    if method == "omp":
        new = np.setdiff1d(np.arange(len(ours)), data["pairs"][:, 0])
        for side, rows in (("ours", ours), ("theirs", theirs)):
            result[f"unbuilt_{side}"] = unbuilt(rows, data["donor"], new)
    return result


def unbuilt(rows: np.ndarray, donor: np.ndarray, new: np.ndarray) -> float:
    """Mean of `|D[n] - rows[n, :f]| / |D[n]|`: the source's rows begin with the donor's (`write_inputs`)."""
    goal = np.asarray(donor[new], dtype=np.float64)
    return float((_length(goal - rows[new, : donor.shape[1]]) / _length(goal)).mean())


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.linalg.norm(vectors, axis=1)


def table(result: dict[str, Any], options: argparse.Namespace) -> str:
    """The result of one method in words."""
    method = result["method"]
    given = (
        f"{options.dim}-d vectors"
        if method in ("wechsel", "focus")
        else f"donor rows of {options.donor_width}, k = {options.k}"
    )
    sizes = f"{options.source:,} x {options.width:,} source rows, {options.target:,} target tokens"
    versions = " against ".join(result["packages"].values())
    lines = [
        f"{method}: {sizes}, {given}",
        f"  {versions}, {options.threads} threads, {options.rounds} rounds",
    ]
    for key, name in (("median", "seconds"), ("cpu_seconds", "CPU seconds"), ("peak_mib", "peak MiB"),
                      ("added_mib", "added MiB"), ("beyond_mib", "beyond MiB")):  # fmt: skip
        line = f"  {name:<12}"
        for side, value in result[key].items():
            line += f" {side} {value:>8}  "
        ratio = {"median": "ratio", "cpu_seconds": "cpu_ratio"}.get(key)
        lines.append(line + (f"ratio {result[ratio]}" if ratio in result else ""))
    within = (f"{side} {'yes' if fits else 'no'}" for side, fits in result["within_3_gib"].items())
    lines.append(f"  within 3 GiB beyond source and target rows: {', '.join(within)}")
    if result["missing"]:
        lines.append(f"  no peer measured: {result['missing']}")
        return "\n".join(lines)
    count, gap, beyond = (result[key] for key in ("rows_compared", "max_difference", "rows_beyond"))
    lines.append(
        f"  {count:,} rows compared: largest difference {gap:.2g}{' of a row' if method == 'omp' else ''}, "
        f"{beyond} beyond {TOLERANCE[method]:g}"
    )
    if method == "omp":
        lines.append(
            f"  share of donor rows not rebuilt: ours {result['unbuilt_ours']:.4f}, "
            f"theirs {result['unbuilt_theirs']:.4f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Parse options, run, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=int, default=250_000, help="source tokens")
    parser.add_argument("--target", type=int, default=64_000, help="target tokens")
    parser.add_argument("--width", type=int, default=1024, help="dimensions of the rows")
    parser.add_argument("--dim", type=int, default=300, help="dimensions of the given vectors")
    parser.add_argument("--donor-width", type=int, default=512, help="dimensions of the donor's rows")
    parser.add_argument("--k", type=int, default=64, help="shared tokens in one row of omp and clp")
    parser.add_argument("--rounds", type=int, default=1, help="pairs of runs")
    parser.add_argument("--threads", type=int, default=2, help="threads of each side")
    parser.add_argument("--methods", nargs="+", default=list(NEEDS), choices=list(NEEDS))
    parser.add_argument("--quick", action="store_true", help="a tenth of the tokens on both sides")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter that has the peers")
    parser.add_argument("--mergekit-python", help="interpreter that has mergekit, if it is another")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument("--verbose", action="store_true", help="show what the sides print")
    options = parser.parse_args()
    if options.quick:
        options.source, options.target = options.source // 10, options.target // 10
    if options.donor_width > options.width or options.k > options.target // 2:
        parser.error("--donor-width must not exceed --width, nor --k the shared half of --target")
    results = []
    with tempfile.TemporaryDirectory(prefix="rows-speed-") as temporary:
        shape = options.source, options.target, options.width, options.dim, options.donor_width
        write_inputs(Path(temporary), *shape)
        for method in options.methods:
            result = measure(method, Path(temporary), options)
            results.append(result)
            if not options.json:
                print(table(result, options), flush=True)
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
