"""Step type `train`: continue training a checkpoint on text."""

from __future__ import annotations

from pathlib import Path

from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner
from warmstart.recipes.training_step import TrainingStep, held_out_bpb, held_out_sample, leave


class TrainStep(TrainingStep):
    """Continue training a checkpoint on text, measuring bits per byte of held-out text on the way."""


@operations.register("train", settings=TrainStep, tags=("trains",))
def train_step(settings: TrainStep, folder: Path, runner: Runner) -> None:
    """Continue training a checkpoint on text; the artifact holds the model and `training.json`, its curve."""
    from warmstart.checkpoint import resolve
    from warmstart.corpus import open_corpus, pack
    from warmstart.training import train
    from warmstart.training.loop import make_objective

    source = resolve(settings.source)
    model, tokenizer = source.load_model(), source.load_tokenizer()
    corpus = open_corpus(settings.corpus)
    packed = pack(corpus, tokenizer, "train", settings.block_size)
    held_out = held_out_sample(corpus.documents(settings.eval_split), settings.eval_max_bytes)
    evaluate = held_out_bpb(tokenizer, held_out, source.task, settings.block_size, settings.bf16)
    plain = settings.loop()
    objective = make_objective(model, tokenizer, plain, **settings.parts(tokenizer, packed))
    outcome = train(model, tokenizer, packed, plain, folder / "run", evaluate=evaluate, objective=objective)
    leave(
        folder,
        "train",
        settings,
        (model, tokenizer),
        outcome,
        parents=[source, *settings.teachers()],
        data={corpus.name: corpus.fingerprint},
    )
