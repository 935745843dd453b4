"""One of two processes: loss and gradient norms with DDP and FSDP2, next to those of a single process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

sys.path.append(str(Path(__file__).parents[1] / "evaluation"))
from tiny_language_models import byte_tokenizer, model_for

from warmstart.objectives import LossModule, objectives


def watched(model: Any) -> list[Any]:
    return [model.lm_head.weight, model.model.layers[0].mlp.up_proj.weight, model.model.norm.weight]


def norms(parameters: list[Any]) -> list[float]:
    grads = [p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad for p in parameters]
    return [float(grad.norm()) for grad in grads]


def main(folder: str, rank: int) -> None:
    """Write what both kinds gave, next to the loss and gradients of this process alone on the whole batch."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    entry = objectives.get("causal")
    objective = entry.target(entry.settings.parse({}), byte_tokenizer())
    blocks = np.random.default_rng(0).integers(0, 90, (6, 16))
    whole, half = (
        objective.collate(part, np.random.default_rng(0))
        for part in (blocks, blocks[3 * rank : 3 * rank + 3])
    )
    alone = LossModule(model_for("llama", 97), objective)
    total, count = alone(whole)
    (total / count).backward()
    found = {"alone": [float(total.detach()), *norms(watched(alone.model))]}
    for kind in ("ddp", "fsdp2"):
        model = model_for("llama", 97)
        module = wrapped(LossModule(model, objective), kind)
        for _ in range(2):  # the first pass probes the head
            model.zero_grad()
            total, part = module(half)
            (total / part).backward()
        summed = total.detach().clone()
        dist.all_reduce(summed)
        found[kind] = [float(summed), *norms(watched(model))]
    if rank == 0:
        torch.save(found, Path(folder) / "result.pt")
    dist.barrier()
    dist.destroy_process_group()


def wrapped(module: Any, kind: str) -> Any:
    """The loss module under DDP, or sharded layer by layer."""
    if kind == "ddp":
        return torch.nn.parallel.DistributedDataParallel(module)
    from torch.distributed.fsdp import fully_shard

    for layer in module.model.model.layers:
        fully_shard(layer)
    return fully_shard(module)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
