"""Step type `train-policy`: a causal model answers prompts itself and learns from what its answers earn."""

from __future__ import annotations

import copy
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import Field

from warmstart.foundation.errors import UserError
from warmstart.foundation.events import EventLog
from warmstart.foundation.files import write_atomic
from warmstart.foundation.progress import note
from warmstart.recipes.operations import operations
from warmstart.recipes.operations.answers import held_out_answers
from warmstart.recipes.runner import Runner
from warmstart.recipes.training_step import TrainingStep, leave

COURSE = "policy.json"
"""File beside `training.json` with what was measured of the model's answers on the way."""


class TrainPolicySettings(TrainingStep):
    """Train a causal model on what its own answers earn; of the texts' answers only the result is used."""

    unbudgeted_epochs = 1.0
    objective: str | dict[str, Any] = "policy-gradient"
    """`policy-gradient`, or a table `{name: policy-gradient, samples: 8, …}` with its settings."""
    marker: str = Field(default="\nA:", min_length=1)
    """What stands in front of an answer, which goes from the last one to the end of the text. The prompt is
    all before the answer, the marker included."""
    block_size: int = Field(default=256, ge=4)
    """Tokens of a text at most, its right answer included, and what each prompt counts as in budgets,
    whatever is written behind it; longer texts are left out."""
    per_device_train_batch_size: int = Field(default=16, ge=1)
    """Prompts per process and forward pass."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Peak learning rate; lower than for text."""
    lr_scheduler_type: str = "constant"
    """Schedule of the learning rate: `warmup-stable-decay`, `cosine`, `linear` or `constant`."""


@operations.register(
    "train-policy",
    settings=TrainPolicySettings,
    title="Back to Basics: Revisiting REINFORCE-Style Optimization for Learning from Human Feedback in LLMs",
    arxiv="2402.14740",
    tags=("trains",),
)
def train_policy_step(settings: TrainPolicySettings, folder: Path, runner: Runner) -> None:
    """Train by policy gradient; the artifact holds the model, `training.json` and `policy.json`.

    The points of the curve are the share of the reward that is missed, `1 - mean reward / largest reward`:
    the model answers held-out prompts once each, by sampling at the temperature of training. The random
    numbers of a prompt are the same at every point and for every seed, so points differ by the model alone.
    `policy.json` holds, for each point, mean reward, share of right results, mean length, share of answers
    that end, and the divergence from the model at the start (see the step `policy-run`).

    The reference of the penalty is the model at the start.
    """
    import warmstart.recipes.sources  # noqa: F401  named sources become known to `resolve`
    from warmstart.checkpoint import resolve
    from warmstart.corpus import open_corpus
    from warmstart.corpus.answers import answer_texts
    from warmstart.evaluation.policy_course import CoursePoint, PolicyCourse
    from warmstart.evaluation.rollouts import Rollouts, rollouts
    from warmstart.objectives.policy_gradient import PolicyGradient
    from warmstart.training import train
    from warmstart.training.loop import make_objective

    source = resolve(settings.source)
    if source.task != "causal":
        raise UserError(f"answers are written by causal models, and this is {source.task}", where=source.path)
    model, tokenizer = source.load_model(), source.load_tokenizer()
    begin, plain = copy.deepcopy(model).eval(), settings.loop()
    objective = make_objective(model, tokenizer, plain, reference=begin)
    if not isinstance(objective, PolicyGradient):
        raise UserError(
            f"the objective {plain.objective!r} reads answers and writes none",
            where="train-policy",
            fix="leave it at policy-gradient, or use the step train-answers",
        )
    corpus = open_corpus(settings.corpus)
    length = settings.block_size
    texts = answer_texts(corpus.documents("train"), tokenizer, length=length, marker=settings.marker)
    if texts.dropped:
        note(f"{texts.dropped:,} texts have no answer within {length} tokens and are left out")
    held = held_out_answers(settings, corpus, tokenizer, settings.eval_split, length)
    answering, log = objective.settings, EventLog(folder / "run" / "rollouts.jsonl")
    keep_measured(log, folder / "run" / "checkpoints")
    largest = answering.reward().largest

    def evaluate(trained: Any) -> float:
        begin.to(trained.device)
        found = rollouts(trained, tokenizer, held.rows, answering, other=begin, bf16=settings.bf16)
        log.append("rollouts", **found.model_dump())
        return 1 - found.reward / largest

    outcome = train(model, tokenizer, texts, plain, folder / "run", evaluate=evaluate, objective=objective)
    measured = [Rollouts(**{k: v for k, v in e.items() if k != "event"}) for e in log.read("rollouts")]
    course = PolicyCourse(
        largest_reward=largest,
        points=[
            CoursePoint(step=point.step, tokens=point.tokens, found=found)
            for point, found in zip(outcome.curve.points, measured, strict=True)
        ],
    )
    leave(
        folder,
        "train-policy",
        settings,
        (model, tokenizer),
        outcome,
        parents=[source],
        data={corpus.name: corpus.fingerprint},
        measured={"prompts": len(texts), "accuracy after": measured[-1].accuracy},
        points="reward missed",
        beside=lambda output: write_atomic(output / COURSE, course.model_dump_json(indent=1)),
    )


def keep_measured(log: EventLog, checkpoints: Path) -> None:
    """Drop what was measured behind the checkpoint from which a killed run goes on: it is measured again."""
    from warmstart.training.state import newest

    found = newest(checkpoints) if checkpoints.is_dir() else None
    if log.path.exists():
        with log.path.open("rb") as file:
            log.rewind(sum(len(line) for line in islice(file, len(found[1].points) if found else 0)))
