"""One run between its first and last step: when to step, measure, log, save and stop."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from warmstart.evaluation.curves import Curve, CurvePoint
from warmstart.foundation.errors import UserError
from warmstart.foundation.events import EventLog
from warmstart.foundation.files import sweep
from warmstart.foundation.progress import Task, progress
from warmstart.training.batches import StepBatches
from warmstart.training.engine import Engine
from warmstart.training.identity import check_same_run
from warmstart.training.interrupt import Interrupted, StopRequest
from warmstart.training.losses import LossSums, mean
from warmstart.training.plan import Plan
from warmstart.training.randomness import random_state, set_random_state, untouched_randomness
from warmstart.training.result import TrainResult
from warmstart.training.state import (
    RunState,
    load_optimizer,
    newest,
    optimizer_tensors,
    prune,
    read_tensors,
    read_weights,
    save_state,
)

Evaluate = Callable[[Any], float]


@dataclass
class Run:
    """A run in progress. Between two steps `state` describes exactly the weights in memory."""

    engine: Engine
    batches: StepBatches
    tokenizer: Any
    run_dir: Path
    evaluate: Evaluate | None
    stop: StopRequest
    lineage: dict[str, Any] | None
    identity: dict[str, Any]
    flops_per_token: float
    teacher_flops_per_token: float
    plan: Plan
    state: RunState = field(default_factory=RunState)
    checkpoint: Path | None = None

    def __post_init__(self) -> None:
        self.settings = self.engine.settings
        self.folder = self.run_dir / "checkpoints"
        self.events = EventLog(self.run_dir / "events.jsonl")
        self._in_step = False
        self._saved_step = 0  # the untrained model is not worth a checkpoint
        self._save_clock = time.monotonic()
        self._norm = torch.zeros(())

    def begin(self, resume: bool) -> None:
        """Take up the newest checkpoint, or begin at step 0."""
        from accelerate.utils import set_seed

        set_seed(self.settings.seed, device_specific=True)
        found = None
        if self.engine.is_main:
            sweep(self.folder)
            found = newest(self.folder)
            if found and not resume:
                raise UserError(
                    f"the run folder already holds a run, at {found[0].name}",
                    where=self.run_dir,
                    fix="continue it (resume), choose another folder, or remove this one",
                )
            if found:
                check_same_run(found[1].identity, self.identity, self.run_dir)
        found = self.engine.share(found)
        if found is not None:
            self._restore(*found)
        self.state.identity = self.identity
        if self.engine.is_main:
            self.events.rewind(self.state.log_position)
        self.losses = LossSums(self.state.logged, self.state.window, self.state.penalty, self.engine.beside)
        self._first = self.state.step, self.state.seconds
        if self.engine.accelerator.log_with:
            plain = {k: v for k, v in self.settings.model_dump().items() if isinstance(v, str | int | float)}
            self.engine.accelerator.init_trackers(self.run_dir.name, config=plain)

    def _restore(self, path: Path, state: RunState) -> None:
        engine = self.engine
        engine.load_weights(read_weights(path))
        load_optimizer(engine.optimizer, engine.named, read_tensors(path / "optimizer.safetensors"))
        set_random_state(state.random[min(engine.rank, len(state.random) - 1)])
        self.state, self.checkpoint, self._saved_step = state, path, state.step

    def to_the_end(self) -> TrainResult:
        """Steps, measurements and checkpoints until the budget is used."""
        try:
            with progress("training", total=1.0) as task:
                while not self._one_round(task):
                    pass
        except KeyboardInterrupt:
            with contextlib.suppress(KeyboardInterrupt):
                if not self._in_step:  # after a second Ctrl-C the weights may be half updated
                    self._save()
            result = self._result(interrupted=True)
            raise Interrupted(self.checkpoint, self.run_dir, result) from None
        self.engine.write_back()
        return self._result()

    def _one_round(self, task: Task) -> bool:
        """Measure and save if due, then take a step; True when the budget is used."""
        stop, idle = self._agreed()
        if stop:
            raise KeyboardInterrupt
        if self.state.measure:
            self._measure()
        done = self.plan.finished(self.state.step, self.state.seconds)
        if done or self.plan.save_now(self.state.step, idle):
            self._save()
        if done:
            if self.stop.asked:
                raise KeyboardInterrupt
            return True
        self._step()
        self._show(task)
        return False

    def _agreed(self) -> tuple[bool, float]:
        """Whether to stop, and seconds since the last save: the same in every process."""
        mine = (self.stop.asked, time.monotonic() - self._save_clock)
        if self.engine.world == 1:
            return mine
        if self.engine.device.type != "cpu" and self.state.step % self.settings.logging_steps:
            return False, 0.0  # an exchange would stall the device at each step
        return self.engine.share(mine)

    def _step(self) -> None:
        state, before = self.state, self.state.seconds
        rate = self.plan.learning_rate(state.step, before)
        share = self.plan.progress(state.step + 0.5, before)
        self._in_step = True
        with self._timed():
            try:
                outcome = self.engine.step(self.batches.get(state.step), self.batches.passes, rate, share)
            except FloatingPointError:
                self._in_step = False
                raise self._not_finite() from None
        if self.settings.max_seconds is not None:
            state.seconds = self.engine.share(state.seconds)
        state.step += 1
        state.untaught += not self.engine.objective.teaching
        state.measure = self.plan.measure_now(state.step, state.seconds, before)
        self.losses.add(outcome.sums, outcome.penalty)
        self._norm = outcome.norm
        if state.step % self.settings.logging_steps == 0:
            self._log(rate)
        self._in_step = False

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.state.seconds += time.perf_counter() - begin

    def _settle(self) -> None:
        """Wait for the device, so that work begun in training is not counted elsewhere."""
        if self.engine.device.type == "cuda":
            with self._timed():
                torch.cuda.synchronize(self.engine.device)

    def _show(self, task: Task) -> None:
        if self.engine.device.type == "cpu" or self.state.step % self.settings.logging_steps == 0:
            share = self.plan.progress(self.state.step, self.state.seconds)
            task.update(share, f"{self._tokens_per_second():,.0f} tokens/s  {self.losses.text()}")

    def _log(self, rate: float) -> None:
        self._settle()
        loss = mean(self.losses.logged)
        if loss is None or not math.isfinite(loss):
            raise self._not_finite()
        values = {
            **self.losses.line(),
            "learning_rate": rate,
            "grad_norm": float(self._norm),
            "tokens_per_second": self._tokens_per_second(),
        }
        if self.engine.is_main:
            self.events.append("train", step=self.state.step, tokens=self._tokens, **values)
        self._track(values)
        self.losses.end_line()

    def _measure(self) -> None:
        """Evaluate, and add the point to curve, log and trackers."""
        self._settle()
        if self.evaluate is not None:
            at_once = self.stop.at_once() if self.engine.world == 1 else contextlib.nullcontext()
            with at_once, untouched_randomness(), self.engine.measured_model() as model:
                value = float(self.evaluate(model)) if self.engine.is_main else math.nan
            value = self.engine.share(value)
            if not math.isfinite(value):
                raise UserError(
                    f"the model measures {value} bits per byte after step {self.state.step}",
                    where=self.run_dir,
                    fix="check the checkpoint's weights; if it has trained, lower learning_rate",
                )
            point = CurvePoint(
                step=self.state.step,
                tokens=self._tokens,
                seconds=self.state.seconds,
                flops=self._flops,
                bpb=value,
                train_loss=mean(self.losses.window),
            )
            if self.engine.is_main:
                self.events.append("evaluation", **point.model_dump())
            self._track({"eval_bpb": value})
            self.state.points.append(point)
        self.losses.end_window()
        self.state.measure = False

    def _track(self, values: dict[str, float]) -> None:
        if self.engine.accelerator.trackers:
            self.engine.accelerator.log(values, step=self.state.step)

    @property
    def _tokens(self) -> int:
        return self.state.step * self.plan.tokens_per_step

    @property
    def _flops(self) -> float:
        """Operations of training so far; steps in which the teacher rests do without its share."""
        untaught = self.state.untaught * self.plan.tokens_per_step
        return self._tokens * self.flops_per_token - untaught * self.teacher_flops_per_token

    def _tokens_per_second(self) -> float:
        steps, seconds = self.state.step - self._first[0], self.state.seconds - self._first[1]
        return steps * self.plan.tokens_per_step / seconds if seconds > 0 else 0.0

    def _not_finite(self) -> UserError:
        rate = self.plan.learning_rate(self.state.step, self.state.seconds)
        kept = f"{self.checkpoint.name} is intact, but " if self.checkpoint else ""
        return UserError(
            f"the training loss is not finite at step {self.state.step + 1} (learning rate {rate:.2g})",
            where=self.run_dir,
            fix=f"{kept}start over with a lower learning_rate (a third of it) or a longer warmup_ratio",
        )

    def _save(self) -> None:
        """Write `checkpoints/step-N` unless it is there; a first signal that comes meanwhile waits."""
        state, engine = self.state, self.engine
        if self._saved_step == state.step:
            return
        self._settle()
        state.window, state.logged, state.penalty = self.losses.kept
        if not all(map(math.isfinite, (*state.window, *state.logged))):
            raise self._not_finite()
        state.random = self._random_states()
        weights, moments = engine.weights(), optimizer_tensors(engine.optimizer, engine.named)
        path = self.folder / f"step-{state.step}"
        if engine.is_main:
            state.log_position = self.events.position()
            save_state(
                self.folder,
                state,
                model=engine.model,
                tokenizer=self.tokenizer,
                weights={name: value.cpu() for name, value in weights.items()},
                optimizer=moments,
                lineage=self.lineage,
            )
            prune(self.folder, self.settings.save_total_limit)
        engine.accelerator.wait_for_everyone()
        self.checkpoint, self._saved_step, self._save_clock = path, state.step, time.monotonic()

    def _random_states(self) -> list[dict[str, Any]]:
        if self.engine.world == 1:
            return [random_state()]
        from accelerate.utils import gather_object

        return gather_object([random_state()])

    def _result(self, interrupted: bool = False) -> TrainResult:
        return TrainResult(
            curve=Curve(seed=self.settings.seed, points=self.state.points),
            tokens=self._tokens,
            seconds=self.state.seconds,
            checkpoint=self.checkpoint,
            interrupted=interrupted,
            steps=self.state.step,
        )
