"""Training: from a model and packed blocks to a trained model and its curve."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from warmstart.foundation.errors import UserError
from warmstart.foundation.files import lock
from warmstart.foundation.tasks import Task
from warmstart.training.batches import Blocks, StepBatches
from warmstart.training.engine import Engine
from warmstart.training.identity import identity_of
from warmstart.training.interrupt import stop_requests
from warmstart.training.memory import keep_freed_memory
from warmstart.training.phases import only_trainable
from warmstart.training.plan import Plan
from warmstart.training.result import TrainResult
from warmstart.training.run import Evaluate, Run

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from warmstart.objectives import Objective
    from warmstart.training.rows import Rows
    from warmstart.training.settings import TrainSettings

__all__ = ["Evaluate", "TrainResult", "flops_per_token", "make_objective", "train"]


def train(
    model: PreTrainedModel,
    tokenizer: Any,
    packed: Blocks,
    settings: TrainSettings,
    run_dir: Path,
    *,
    evaluate: Evaluate | None = None,
    lineage: Mapping[str, Any] | BaseModel | None = None,
    resume: bool = True,
    rows: Rows | None = None,
    objective: Objective | None = None,
) -> TrainResult:
    """Train `model` in place on `packed` blocks and measure it on the way.

    Under `accelerate launch` or `torchrun` every process calls this with the same arguments. On the same
    machine with the same number of threads, a run that was stopped or killed at any moment and continued ends
    with bitwise the weights and curve of an uninterrupted one (except under a budget in seconds).

    Args:
        model: Any causal, masked or encoder-decoder model in float32; moved to the accelerator's device.
        tokenizer: Stored beside the weights; masked objectives ask it for their mask token.
        packed: Blocks of `settings.block_size` token ids.
        settings: Options.
        run_dir: Folder of this run alone; another process that works on it is an error.
        evaluate: Bits per byte of held-out text under the model it is given. Called before the first step,
            after the last, and at the evaluation points; its time and its random numbers do not count.
        lineage: `checkpoint.Lineage` of the result, written to each checkpoint.
        resume: Continue from the newest whole checkpoint in `run_dir`; without it, one that exists is an
            error.
        rows: Vocabulary rows that learn, as ids or as (V,) booleans; all others stay bit for bit what they
            were, in the input matrix, the head and its bias. Which of these learn at all, and whether the
            body does, is `settings.trainable`.
        objective: Made by [`make_objective`][warmstart.training.loop.make_objective] with parts that settings
            cannot hold, such as a teacher; made from `settings` by default.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the state of the last whole step is saved.
        UserError: No budget, blocks of another size, a run folder in use or of another run, a full disk, or a
            loss that is not finite.
    """
    run_dir = Path(run_dir)
    _check_blocks(packed, settings)
    objective = objective or make_objective(model, tokenizer, settings)
    if objective.parallel and packed[0].ndim == 1:
        raise UserError(
            f"{type(objective).__name__} compares two cuts of one text, and these blocks hold one",
            fix="train new rows with the step train-rows",
        )
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(stop_requests())
        schedule = stack.enter_context(only_trainable(model, settings.trainable))
        stack.enter_context(_training_mode(model))
        identity = identity_of(model, packed, settings, rows=rows, objective=objective)
        flops = flops_per_token(model, objective, settings.block_size)
        stack.callback(objective.finish)
        engine = Engine(model, objective, settings, run_dir, rows=rows, schedule=schedule)
        stack.callback(engine.close)
        if engine.is_main:
            stack.enter_context(lock(run_dir))
        if engine.device.type == "cpu":
            keep_freed_memory()
        batches = StepBatches(
            packed,
            objective,
            seed=settings.seed,
            rows=settings.per_device_train_batch_size,
            passes=settings.gradient_accumulation_steps,
            rank=engine.rank,
            world=engine.world,
            device=engine.device,
        )
        stack.enter_context(batches)
        run = Run(
            engine=engine,
            batches=batches,
            tokenizer=tokenizer,
            run_dir=run_dir,
            evaluate=evaluate,
            stop=stop,
            lineage=_plain(lineage),
            identity={**identity, "blocks per step": batches.global_rows},
            flops_per_token=flops,
            teacher_flops_per_token=teacher_flops_per_token(model, objective, settings.block_size),
            plan=Plan.of(
                settings,
                tokens_per_step=batches.global_rows * settings.block_size,
                num_blocks=len(packed),
            ),
        )
        run.begin(resume)
        return run.to_the_end()


def make_objective(
    model: PreTrainedModel, tokenizer: Any, settings: TrainSettings, **parts: Any
) -> Objective:
    """The objective that `settings` names; `auto` takes the one that `model` was made for.

    Args:
        model: Tells the task.
        tokenizer: Of the model.
        settings: Options of the run.
        **parts: What the objective needs beside settings (see `Objective.parts`), such as a teacher; those
            that it has no use for are left out.
    """
    from warmstart.objectives import objectives
    from warmstart.objectives._base import USUAL

    table = {"name": settings.objective} if isinstance(settings.objective, str) else dict(settings.objective)
    name = table.pop("name", "auto")
    if getattr(model.config, "is_encoder_decoder", False):
        task: Task = "seq2seq"
    else:
        task = "masked" if type(model).__name__.endswith("ForMaskedLM") else "causal"
    name = USUAL[task] if name == "auto" else name
    entry = objectives.get(name, where="objective")
    if task in entry.target.asked:
        entry = objectives.get(entry.target.asked[task])
    if entry.target.task != task:
        raise UserError(
            f"the objective {name!r} is for {entry.target.task} models, and {type(model).__name__} is {task}",
            fix=f"use objective: {USUAL[task]}",
        )
    options = entry.settings.parse(table, where=f"objective {name}")
    wanted = {key: part for key, part in parts.items() if key in entry.target.parts}
    teacher = getattr(options, "teacher", None)
    if teacher is not None:
        from warmstart.checkpoint import resolve

        if "teacher" in wanted:
            raise UserError(
                f"the objective {name!r} names a teacher, and here another one teaches", fix="leave it out"
            )

        found = resolve(teacher)
        if found.task != task:
            raise UserError(f"the teacher is a {found.task} model and the student is {task}", where=teacher)
        wanted |= {"teacher": found.load_model(), "teacher_tokenizer": found.load_tokenizer()}
    return entry.target(options, tokenizer, **wanted)


def flops_per_token(model: PreTrainedModel, objective: Objective, block_size: int) -> float:
    """Floating-point operations of training on one token of text, from the anatomy of the model.

    The objective says what is computed for a block (a masked model's head only where something is masked); a
    backward pass costs two forward passes. Families without an anatomy count six operations per parameter
    (Kaplan et al., arXiv 2001.08361). A frozen teacher costs its forward pass.
    """
    from warmstart.anatomy import anatomy_of_model

    try:
        anatomy = anatomy_of_model(model)
    except UserError:
        own = 6.0 * sum(p.numel() for p in model.parameters())
        return own * objective.shape(block_size).passes + teacher_flops_per_token(
            model, objective, block_size
        )
    shape = objective.shape(block_size)
    forward = anatomy.flops(shape.inputs, target_length=shape.targets, predicted_fraction=shape.predicted)
    return (3 * forward * shape.passes + _teacher_flops(model, objective, block_size)) / block_size


def teacher_flops_per_token(model: PreTrainedModel, objective: Objective, block_size: int) -> float:
    """The teacher's part of [`flops_per_token`][warmstart.training.loop.flops_per_token].

    The teacher's own anatomy counts, or two operations per parameter and position where it has none.
    """
    return _teacher_flops(model, objective, block_size) / block_size


def _teacher_flops(model: PreTrainedModel, objective: Objective, block_size: int) -> float:
    from warmstart.anatomy import anatomy_of_model

    shape = objective.shape(block_size)
    if not shape.teacher:
        return 0.0
    teacher = model if objective.tutor is None else objective.tutor
    try:
        anatomy = anatomy_of_model(teacher)
    except UserError:
        return 2.0 * sum(p.numel() for p in teacher.parameters()) * shape.teacher
    return anatomy.flops(shape.teacher, target_length=shape.teacher_targets, predicted_fraction=shape.taught)


@contextlib.contextmanager
def _training_mode(model: PreTrainedModel) -> Iterator[None]:
    before = model.training
    model.train()
    try:
        yield
    finally:
        model.train(before)


def _check_blocks(packed: Blocks, settings: TrainSettings) -> None:
    if not len(packed):
        raise UserError("the text is shorter than one block", fix="give more text or a smaller block_size")
    length = packed[0].shape[-1]
    if length != settings.block_size:
        raise UserError(
            f"block_size is {settings.block_size}, but the text was packed in blocks of {length}",
            fix=f"set block_size: {length}",
        )


def _plain(lineage: Mapping[str, Any] | BaseModel | None) -> dict[str, Any] | None:
    if isinstance(lineage, BaseModel):
        return lineage.model_dump(mode="json")
    return dict(lineage) if lineage is not None else None
