"""Step type `train-supernet`: train a model so that its sub-networks are good as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner
from warmstart.recipes.training_step import TrainingStep, held_out_bpb, held_out_sample, leave
from warmstart.shape.search.masks import MaskSettings


class TrainSuperNetStep(TrainingStep):
    """Train a checkpoint together with the sub-networks that masks make of it."""

    objective: str | dict[str, Any] = "supernet"
    """`supernet`, or a table `{name: supernet, strategy: …}`: which sub-networks learn in a step, and from
    whom."""
    masks: MaskSettings = MaskSettings()
    """Which sub-networks there are: `{granularity: small, layers: …, heads: …, units: …}`."""


@operations.register("train-supernet", settings=TrainSuperNetStep, tags=("trains",))
def train_supernet_step(settings: TrainSuperNetStep, folder: Path, runner: Runner) -> None:
    """Train a model and its sub-networks; the artifact holds the whole model and `training.json`, its curve.

    The sub-networks are prefixes: the first layers, heads and units become those that all of them share.
    """
    from warmstart.anatomy import anatomy_of_model
    from warmstart.checkpoint import resolve
    from warmstart.corpus import open_corpus, pack
    from warmstart.foundation.errors import UserError
    from warmstart.shape.search.masks import MaskSpace
    from warmstart.training import train
    from warmstart.training.loop import make_objective

    if settings.masks.importance != "first":
        raise UserError(
            "training with masks takes heads and units as they stand",
            where="masks",
            fix="leave importance out; `pareto` and `search` may rank them",
        )
    source = resolve(settings.source)
    model, tokenizer = source.load_model(), source.load_tokenizer()
    space = MaskSpace(anatomy_of_model(model), settings.masks)
    objective = make_objective(model, tokenizer, settings.loop(), sub_networks=space)
    if "sub_networks" not in objective.parts:
        raise UserError(
            f"the objective {type(objective).__name__} knows no sub-networks", fix="use objective: supernet"
        )
    objective.fingerprint = settings.masks.digest()
    corpus = open_corpus(settings.corpus)
    packed = pack(corpus, tokenizer, "train", settings.block_size)
    held_out = held_out_sample(corpus.documents(settings.eval_split), settings.eval_max_bytes)
    evaluate = held_out_bpb(tokenizer, held_out, source.task, settings.block_size, settings.bf16)
    run = folder / "run"
    outcome = train(model, tokenizer, packed, settings.loop(), run, evaluate=evaluate, objective=objective)
    leave(
        folder,
        "train-supernet",
        settings,
        (model, tokenizer),
        outcome,
        parents=[source],
        data={corpus.name: corpus.fingerprint},
    )
