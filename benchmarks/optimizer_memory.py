"""State and step time of each optimizer against torch's AdamW, and against `galore-torch` and `apollo-torch`.

All update copies of the same weights (those of a Llama: rows, layers, norms) with the same gradients, in one
process; in each round every optimizer takes one step in turn, so that other work on the machine meets all
alike. A step time is the median of the rounds, its ratio to AdamW the median over rounds. `renewal` is the
first step, in which projections are made (an SVD of each matrix where there is one); in training one step of
`update_proj_gap` costs that. Peers that cannot be imported are left out, with a line that says why.

    python benchmarks/optimizer_memory.py                                  # a 60M Llama, a few minutes
    python benchmarks/optimizer_memory.py --hidden 64 --layers 2 --vocab 500 --rounds 5
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import statistics
import time
from typing import Any

PEERS = {"galore-torch": ("galore_torch", "GaLoreAdamW"), "apollo-torch": ("apollo_torch", "APOLLOAdamW")}
PEER_GROUPS: dict[str, dict[str, Any]] = {
    "galore-torch": {"scale": 0.25, "proj_type": "std"},
    "apollo-torch": {"scale": 1.0, "proj_type": "std", "proj": "random", "scale_type": "channel"},
}


def shapes(given: argparse.Namespace) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the parameters of a Llama with a head of its own."""
    hidden, middle = given.hidden, given.middle or round(given.hidden * 8 / 3)
    found: dict[str, tuple[int, ...]] = {"rows": (given.vocab, hidden), "head": (given.vocab, hidden)}
    for layer in range(given.layers):
        for name in ("q", "k", "v", "o"):
            found[f"layers.{layer}.{name}"] = (hidden, hidden)
        found[f"layers.{layer}.gate"] = found[f"layers.{layer}.up"] = (middle, hidden)
        found[f"layers.{layer}.down"] = (hidden, middle)
        found |= {f"layers.{layer}.norm{i}": (hidden,) for i in range(2)}
    return found


class Side:
    """One optimizer over its own copy of the weights."""

    def __init__(self, name: str, given: argparse.Namespace, gradients: dict[str, Any]) -> None:
        import torch
        from torch import nn

        device = next(iter(gradients.values())).device
        drawn = torch.Generator().manual_seed(0)
        self.named = {
            key: nn.Parameter((0.02 * torch.randn(grad.shape, generator=drawn)).to(device))
            for key, grad in gradients.items()
        }
        for key, parameter in self.named.items():
            parameter.grad = gradients[key]
        self.optimizer = self._peer(name, given) if name in PEERS else self._ours(name, given)
        self.seconds: list[float] = []

    @property
    def matrices(self) -> frozenset[str]:
        return frozenset(k for k, p in self.named.items() if k.startswith("layers.") and p.ndim == 2)

    def _ours(self, name: str, given: argparse.Namespace) -> Any:
        from warmstart.training.optimizer import OptimizerContext, chosen_optimizer

        entry, _ = chosen_optimizer(name)
        ranked = "rank" in entry.settings.model_fields and name != "apollo-mini"
        options = entry.settings.parse({"rank": given.rank} if ranked else {})
        names = {parameter: key for key, parameter in self.named.items()}
        context = OptimizerContext(
            [{"params": list(self.named.values()), "weight_decay": 0.0}], names, self.matrices
        )
        return entry.target(context, options)

    def _peer(self, name: str, given: argparse.Namespace) -> Any:
        lean = [self.named[key] for key in sorted(self.matrices)]
        rest = [p for key, p in self.named.items() if key not in self.matrices]
        projected = {"rank": given.rank or given.hidden // 4, "update_proj_gap": 200, **PEER_GROUPS[name]}
        return peer_class(name)(
            [{"params": rest}, {"params": lean, **projected}], no_deprecation_warning=True
        )

    def step(self) -> None:
        import torch

        begin = time.perf_counter()
        self.optimizer.step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - begin)

    def state_bytes(self, keys: frozenset[str]) -> int:
        """Bytes of all tensors that the optimizer keeps for these parameters, also inside its projectors."""
        import torch

        total = 0
        for key in keys:
            for value in self.optimizer.state[self.named[key]].values():
                inside = [value] if isinstance(value, torch.Tensor) else vars_of(value)
                total += sum(v.untyped_storage().nbytes() for v in inside if isinstance(v, torch.Tensor))
        return total


def vars_of(value: Any) -> list[Any]:
    """What a peer's projector holds."""
    return list(vars(value).values()) if hasattr(value, "__dict__") else []


@functools.cache
def peer_class(name: str) -> Any:
    """The peer's optimizer; any failure to import it is an ImportError."""
    module, attribute = PEERS[name]
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise ImportError(f"{name}: {' '.join(str(error).split())}") from error


def importable_peers() -> tuple[list[str], list[str]]:
    """Names of the peers that can be measured, and why the others cannot."""
    found, missing = [], []
    for name in PEERS:
        try:
            peer_class(name)
            found.append(name)
        except ImportError as error:
            missing.append(str(error))
    return found, missing


def formula(name: str, given: argparse.Namespace, matrices: dict[str, tuple[int, ...]]) -> int | None:
    """Bytes of a matrix's state in the papers' formulas, summed over the matrices, in float32."""
    total = 0
    for shape in matrices.values():
        m, n = sorted(shape)
        r = min(m, given.rank or m // 4)
        counts = {"adamw": 2 * m * n, "restarts": 2 * m * n, "adafactor": m + n, "apollo-mini": 2 * n}
        counts |= {"galore": m * r + 2 * n * r, "fira": m * r + 2 * n * r, "apollo": 2 * n * r}
        counts |= {"galore-torch": counts["galore"], "apollo-torch": counts["apollo"]}
        if name not in counts:
            return None
        total += 4 * counts[name]
    return total


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Figures of every optimizer, and why peers are missing."""
    import torch

    from warmstart.training.optimizer import optimizers

    torch.set_num_threads(given.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    drawn = torch.Generator().manual_seed(1)
    sizes = shapes(given)
    gradients = {key: 0.01 * torch.randn(shape, generator=drawn).to(device) for key, shape in sizes.items()}
    peers, missing = importable_peers()
    names = ["adamw", *(n for n in optimizers.names() if n != "adamw"), *peers]
    sides = {name: Side(name, given, gradients) for name in names}
    for _ in range(given.rounds + 2):  # the first makes states and projections, the second warms up
        for side in sides.values():
            side.step()
    found = {}
    for name, side in sides.items():
        matrices = {key: sizes[key] for key in side.matrices}
        steady, base = side.seconds[2:], sides["adamw"].seconds[2:]
        ratios = [a / b for a, b in zip(steady, base, strict=True)]
        found[name] = {
            "state_bytes": side.state_bytes(frozenset(sizes)),
            "matrix_bytes": side.state_bytes(side.matrices),
            "formula_bytes": formula(name, given, matrices),
            "milliseconds": 1e3 * statistics.median(steady),
            "ratio": statistics.median(ratios),
            "renewal_milliseconds": 1e3 * side.seconds[0],
        }
    values = sum(p.numel() for p in sides["adamw"].named.values())
    return {"parameters": values, "device": device, "missing": missing, "optimizers": found}


_WIDTHS = (12, 7, 13, 12, 11, 7, 12)


def table(result: dict[str, Any], given: argparse.Namespace) -> str:
    """The figures for people; ratios are to AdamW in the same run."""
    base = result["optimizers"]["adamw"]
    heads = zip(("all state", "ratio", "of matrices", "formula", "step", "ratio", "renewal"), _WIDTHS)
    model = f"{result['parameters'] / 1e6:.1f}M parameters on {result['device']}, rank {given.rank or 'd/4'}"
    lines = [
        f"{model}, {given.threads} threads, median of {given.rounds} rounds",
        " " * 14 + "".join(f"{head:>{width}}" for head, width in heads),
    ]
    for name, row in result["optimizers"].items():
        cells = (
            f"{row['state_bytes'] / 2**20:.2f} MiB",
            f"{row['state_bytes'] / base['state_bytes']:.2f}",
            f"{row['matrix_bytes'] / 2**20:.2f} MiB",
            "" if row["formula_bytes"] is None else f"{row['formula_bytes'] / 2**20:.2f} MiB",
            f"{row['milliseconds']:.1f} ms",
            f"{row['ratio']:.2f}",
            f"{row['renewal_milliseconds']:.1f} ms",
        )
        lines.append(f"{name:14}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, _WIDTHS)))
    return "\n".join([*lines, *(f"not measured: {reason}" for reason in result["missing"])])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--middle", type=int, default=0, help="8/3 of --hidden by default")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--vocab", type=int, default=32_000)
    parser.add_argument("--rank", type=int, default=None, help="a quarter of the shorter side by default")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    given = parser.parse_args()
    if min(given.hidden, given.layers, given.vocab, given.rounds, given.threads) < 1 or given.hidden < 4:
        parser.error("sizes, rounds and threads must be positive, and --hidden at least 4")
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    result = measure(given)
    print(json.dumps({"options": vars(given), **result}) if given.json else table(result, given))


if __name__ == "__main__":
    main()
