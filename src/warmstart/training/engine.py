"""One optimizer step on any number of processes: forward, backward, normalise, clip, update."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from warmstart.training.kernels import fast_kernels
from warmstart.training.launch import make_accelerator, shard, wants_shards
from warmstart.training.parameters import COMPANIONS, make_optimizer
from warmstart.training.phases import Phase, resting
from warmstart.training.randomness import untouched_randomness
from warmstart.training.rows import ChosenRows, Rows
from warmstart.training.state import assign, whole

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from warmstart.objectives import Objective
    from warmstart.training.settings import TrainSettings


class StepOutcome(NamedTuple):
    """Measured in one step, over all processes; tensors on the device, so that nothing waits for it.

    Attributes:
        sums: Summed negative log-likelihood in nats and number of targets, (2,).
        norm: Length of the gradient of the mean loss before clipping.
        penalty: Summed penalty, each target's counted once; 0 for a model without one.
    """

    sums: Tensor
    norm: Tensor
    penalty: Tensor


class Engine:
    """Model, optimizer and processes of a run.

    The loss of a step is `sum of nll / number of targets` over all passes and processes. Sums are
    back-propagated as they are and the gradient is divided once, when the number of targets is known:
    averaging the means of passes (what transformers did until issue #35556) weighs a target by the company it
    keeps.

    Args:
        model: Trained in place. With FSDP2 a sharded copy is trained and written back at the end.
        objective: Gives the loss.
        settings: Options of the run.
        run_dir: Where trackers write.
        rows: Vocabulary rows that learn; all by default.
        schedule: What learns when; everything that requires a gradient by default.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        objective: Objective,
        settings: TrainSettings,
        run_dir: Path,
        *,
        rows: Rows | None = None,
        schedule: list[Phase] | None = None,
    ) -> None:
        from warmstart.objectives import LossModule
        from warmstart.objectives._penalty import penalty_of

        self.settings, self.model, self.objective = settings, model, objective
        self.accelerator = make_accelerator(settings, run_dir)
        self.sharded = self.world > 1 and wants_shards(settings)
        trained = copy.deepcopy(model) if self.sharded else model
        with untouched_randomness():  # companions start alike in every process and run
            torch.manual_seed(settings.seed)
            self.penalty = penalty_of(trained, settings.router_aux_loss_coef)
            module: nn.Module = LossModule(trained, objective, self.penalty)
        self._open = contextlib.ExitStack()
        if self.penalty is not None:
            self._open.callback(self.penalty.close)
        # Compiled models do without: the compiler fuses the original parts itself.
        self._open.enter_context(
            fast_kernels(
                trained,
                enabled=settings.fast_kernels and not settings.torch_compile and self.device.type == "cpu",
            )
        )
        if settings.gradient_checkpointing:
            _recompute(trained, True)
        if settings.torch_compile:
            module.compile(dynamic=False)
        inner = module
        if self.sharded:
            shard(module, trained, self.accelerator)
            optimizer = make_optimizer(model, _named(inner), settings)
            self.module, self.optimizer = module, optimizer
        else:
            optimizer = make_optimizer(model, _named(inner), settings)
            self.module, self.optimizer = self.accelerator.prepare(module, optimizer)
        self.named = _named(inner)
        self._trained, self._schedule = trained, schedule or []
        self._rows = None if rows is None else ChosenRows(trained, rows)
        objective.prepare(trained, self.device)
        self._updated = [p for group in self.optimizer.param_groups for p in group["params"]]

    @property
    def rank(self) -> int:
        """This process."""
        return self.accelerator.process_index

    @property
    def world(self) -> int:
        """Number of processes."""
        return self.accelerator.num_processes

    @property
    def beside(self) -> str | None:
        """Name of the model's penalty; None where it has none."""
        return None if self.penalty is None else self.penalty.name

    @property
    def is_main(self) -> bool:
        """Whether this process writes files."""
        return self.accelerator.is_main_process

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return self.accelerator.device

    def step(
        self,
        passes: Iterable[dict[str, Tensor]],
        count: int,
        learning_rate: float,
        progress: float = 1.0,
    ) -> StepOutcome:
        """Take one optimizer step over `count` forward passes, at the share `progress` of the budget.

        Raises:
            FloatingPointError: The loss or gradient is not finite; nothing was updated. Seen here on a CPU
                only; elsewhere looking would stall the device, and the caller looks at the sums from time to
                time.
        """
        sums = torch.zeros(3, dtype=torch.float64 if self.device.type != "mps" else torch.float32).to(
            self.device
        )
        self.objective.at(progress)
        if self.penalty is not None:
            self.penalty.at(progress)
        with self._at_rest(progress):
            sums = self._backward(passes, count, sums)
        if self.world > 1:
            sums = self.accelerator.reduce(sums, "sum")
        if self._rows is not None:
            self._rows.keep(self._updated)
        norm = self._normalise(sums[1])
        if self.device.type == "cpu" and not (torch.isfinite(sums[0]) and torch.isfinite(norm)):
            self.optimizer.zero_grad(set_to_none=True)
            raise FloatingPointError
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["lr_multiplier"]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return StepOutcome(sums[:2], norm, sums[2])

    def _backward(self, passes: Iterable[dict[str, Tensor]], count: int, sums: Tensor) -> Tensor:
        for number, batch in enumerate(passes, 1):
            with self._silent() if number < count and self.world > 1 else contextlib.nullcontext():
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.bf16):
                    nll, targets, *beside = self.module(batch)
                self.accelerator.backward(nll + self.penalty.weight * beside[0] if self.penalty else nll)
            parts = [part.detach().to(sums) for part in (nll, targets, *beside)]
            sums[: len(parts)] += torch.stack(parts)
        return sums

    @contextmanager
    def _at_rest(self, progress: float) -> Iterator[None]:
        """Parameters of other phases get no gradient inside, and have none after it.

        Several processes have agreed on what to exchange: there the gradient is computed and thrown away.
        """
        names = resting(self._schedule, progress) if self._schedule else ()
        idle = [self.named[name] for name in names]
        skip = idle if self.world == 1 else []
        for parameter in skip:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in skip:
                parameter.requires_grad_(True)
        for parameter in idle:
            parameter.grad = None

    @contextmanager
    def _silent(self) -> Iterator[None]:
        """Gradients inside are kept to this process: they are exchanged once, after the last pass."""
        if not self.sharded:
            with self.accelerator.no_sync(self.module):
                yield
            return
        module: Any = self.module
        module.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            module.set_requires_gradient_sync(True)

    def _normalise(self, targets: Tensor) -> Tensor:
        """Divide gradients by the number of targets and clip them; returns their length before clipping."""
        grads = [p.grad for p in self._updated if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        # DDP and FSDP2 have averaged over processes: multiply by their number to have the sum again.
        factor = (self.world / targets.clamp(min=1)).to(norm)
        norm = norm * factor
        if self.settings.max_grad_norm is not None:
            factor = factor * (self.settings.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
        inner: Any = getattr(self.optimizer, "optimizer", self.optimizer)
        divides = getattr(inner, "_step_supports_amp_scaling", False)
        if self.sharded or factor.dtype != torch.float32 or not divides:
            torch._foreach_mul_([g.to_local() if hasattr(g, "to_local") else g for g in grads], factor)
        else:  # the fused kernel divides while it updates, which saves a pass over all gradients
            inner.grad_scale, inner.found_inf = 1 / factor, None
        return norm

    def share(self, value: Any) -> Any:
        """`value` of the main process, on every process."""
        if self.world == 1:
            return value
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value], from_process=0)[0]

    def weights(self) -> dict[str, Tensor]:
        """Whole parameters and persistent buffers by name, tied ones once; every process must call it."""
        persistent = self._trained.state_dict(keep_vars=True)
        buffers = {name: b for name, b in self._trained.named_buffers() if name in persistent}
        return {name: whole(t) for name, t in {**self.named, **buffers}.items()}

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Inverse of `weights`."""
        targets = {**self.named, **dict(self._trained.named_buffers())}
        for name, value in weights.items():
            assign(targets[name], value)

    def write_back(self) -> None:
        """Give the caller's model the trained weights (they are there already unless sharded)."""
        if self.sharded:
            own = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
            for name, value in self.weights().items():
                if name.startswith(COMPANIONS):
                    continue
                assign(own[name], value.to(own[name].device))

    @contextmanager
    def measured_model(self) -> Iterator[PreTrainedModel]:
        """The whole model in evaluation mode; with FSDP2 a full copy, for the main process alone."""
        self.write_back()
        if self.sharded and self.is_main:
            nn.Module.to(self.model, self.device)
        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                yield self.model
        finally:
            self.model.train(training)

    def close(self) -> None:
        """Finish trackers and leave the model as it came, but for its weights."""
        self._open.close()
        for tracker in self.accelerator.trackers:
            tracker.finish()
        if self.settings.gradient_checkpointing:
            _recompute(self._trained, False)
        self.accelerator.free_memory()


def _named(module: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters of a `LossModule` under the names that they have in its model; companions keep a prefix."""
    return {name.removeprefix("model."): p for name, p in module.named_parameters()}


def _recompute(model: Any, on: bool) -> None:
    """Activation checkpointing on or off, by the name that this version of transformers has for it."""
    if not hasattr(model, "activation_checkpointing_enable"):
        if on:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        else:
            model.gradient_checkpointing_disable()
    elif on:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    else:
        model.activation_checkpointing_disable()
