"""One of two processes: loss and gradient norms with DDP or FSDP2, next to those of a single process."""

from __future__ import annotations

import copy
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


def main(kind: str, folder: str, rank: int) -> None:
    """Compare in process 0 and write what was found."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    entry = objectives.get("causal")
    objective = entry.target(entry.settings.parse({}), byte_tokenizer())
    blocks = np.random.default_rng(0).integers(0, 90, (6, 16))
    model = model_for("llama", 97)
    alone = LossModule(copy.deepcopy(model), objective)
    total, count = alone(objective.collate(blocks, np.random.default_rng(0)))
    (total / count).backward()
    expected = [float(total.detach()), *norms(watched(alone.model))]

    module: Any = LossModule(model, objective)
    if kind == "ddp":
        module = torch.nn.parallel.DistributedDataParallel(module)
    else:
        from torch.distributed.fsdp import fully_shard

        for layer in model.model.layers:
            fully_shard(layer)
        fully_shard(module)
    half = objective.collate(blocks[3 * rank : 3 * rank + 3], np.random.default_rng(0))
    for _ in range(2):  # the first pass probes the head
        model.zero_grad()
        total, part = module(half)
        (total / part).backward()
    summed = total.detach().clone()
    dist.all_reduce(summed)
    found = [float(summed), *norms(watched(model))]
    if rank == 0:
        torch.save({"alone": expected, "together": found}, Path(folder) / "result.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
