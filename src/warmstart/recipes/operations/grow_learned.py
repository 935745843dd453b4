"""Step type `grow-learned`: a larger model whose weights are a learned map of a smaller one's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from warmstart.foundation.errors import UserError
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner
from warmstart.recipes.training_step import TrainingStep, held_out_bpb, held_out_sample, leave
from warmstart.shape.grow_learned import LearnedGrowthSettings
from warmstart.training.settings import TrainSettings

if TYPE_CHECKING:
    from warmstart.evaluation.curves import Curve

_USUAL_STEPS = 100


class GrowLearnedStep(TrainingStep, LearnedGrowthSettings):
    """Learn on text how a model grows: small weights stay, and a map from them to the large ones is trained.

    The budget is that of the map, 100 steps where none is given; the large model is trained afterwards, by
    `train`.
    """

    learning_rate: float = Field(default=2e-4, gt=0)
    """Peak learning rate of the map."""

    def loop(self) -> TrainSettings:
        """What the training loop is told."""
        plain = super().loop()
        budgets = (plain.max_tokens, plain.max_steps, plain.max_seconds, plain.num_train_epochs)
        return plain if any(budgets) else plain.model_copy(update={"max_steps": _USUAL_STEPS})


@operations.register("grow-learned", settings=GrowLearnedStep, tags=("trains",))
def grow_learned_step(settings: GrowLearnedStep, folder: Path, runner: Runner) -> None:
    """Learn a growth and leave the large model, an ordinary checkpoint, with `training.json`, its curve.

    Its FLOPs hold those of making the weights and of their gradients; training with `count_on` goes on from
    them.
    """
    from warmstart.checkpoint import resolve
    from warmstart.corpus import open_corpus, pack
    from warmstart.shape.grow_learned import grow_learned
    from warmstart.shape.learned._through import through
    from warmstart.training import train
    from warmstart.training.loop import make_objective

    _check(settings)
    source = resolve(settings.source)
    tokenizer = source.load_tokenizer()
    corpus = open_corpus(settings.corpus)
    packed = pack(corpus, tokenizer, "train", settings.block_size)
    held_out = held_out_sample(corpus.documents(settings.eval_split), settings.eval_max_bytes)
    own = {name: getattr(settings, name) for name in LearnedGrowthSettings.model_fields}
    model, weights = grow_learned(source.load_model(), LearnedGrowthSettings(**own))
    plain = settings.loop()
    objective = through(make_objective(model, tokenizer, plain, **settings.parts(tokenizer, packed)), weights)
    measure = held_out_bpb(tokenizer, held_out, source.task, settings.block_size, settings.bf16)

    def evaluate(large: Any) -> float:
        weights.write(large)
        return measure(large)

    before = sum(parameter.numel() for parameter in weights.growth.parameters())
    outcome = train(model, tokenizer, packed, plain, folder / "run", evaluate=evaluate, objective=objective)
    weights.write(model)
    passes = settings.gradient_accumulation_steps
    outcome = replace(outcome, curve=with_cost(outcome.curve, weights.flops * passes))
    leave(
        folder,
        "grow-learned",
        settings,
        (model, tokenizer),
        outcome,
        parents=[source, *settings.teachers()],
        data={corpus.name: corpus.fingerprint},
        measured={
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "parameters of the map": before,
            "function": "changed: the map was learned",
            "FLOPs of the map": weights.flops * passes * outcome.steps,
        },
    )


def with_cost(curve: Curve, per_step: float) -> Curve:
    """The curve with so many floating-point operations more in each step."""
    points = [p.model_copy(update={"flops": p.flops + per_step * p.step}) for p in curve.points]
    return curve.model_copy(update={"points": points})


def _check(settings: GrowLearnedStep) -> None:
    """Refuse what has no meaning where the model's own parameters do not learn."""
    if settings.trainable != "all":
        raise UserError("what learns is the map, not the model", where="trainable", fix="leave it out")
    for name in ("torch_compile", "gradient_checkpointing"):
        if getattr(settings, name):
            raise UserError(f"a growth cannot be learned with {name}", where=name, fix="leave it out")
    if settings.distributed == "fsdp2":
        raise UserError("a growth cannot be learned in shards", where="distributed", fix="use ddp")
