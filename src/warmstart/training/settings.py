"""Options of training, under the names that Hugging Face users know."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import AddedLater, Settings


class TrainSettings(Settings):
    """How long, how fast and with what a model is trained. Exactly one budget (`max_…`, `num_…`) is given."""

    objective: str | dict[str, Any] = "auto"
    """What the model is asked: `causal`, `masked`, `span`, or a table `{name: masked, …}` with the
    objective's own settings, such as `{name: distillation, teacher: …}`; `auto` takes the one the model was
    made for."""
    block_size: int = Field(default=256, ge=2)
    """Tokens per training block."""

    max_tokens: int | None = Field(default=None, gt=0)
    """Budget in training tokens; the last step is taken whole."""
    max_steps: int | None = Field(default=None, gt=0)
    """Budget in optimizer steps."""
    max_seconds: float | None = Field(default=None, gt=0)
    """Budget in seconds of training; evaluation and saving do not count. The length of such a run, and so its
    schedule, depends on the machine: it cannot be repeated bit for bit."""
    num_train_epochs: float | None = Field(default=None, gt=0)
    """Budget in passes over the blocks."""

    per_device_train_batch_size: int = Field(default=8, ge=1)
    """Blocks per process and forward pass."""
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    """Forward passes per optimizer step. The loss is the mean over all targets of the step, however they are
    spread over passes and processes, so this changes memory and speed, not the result."""

    learning_rate: float = Field(default=5e-4, gt=0)
    """Peak learning rate."""
    lr_multipliers: Annotated[dict[str, Annotated[float, Field(gt=0)]], AddedLater()] = {}
    """Factors on the learning rate, such as `{'layers\\.[0-3]\\.': 0.3}`: the first regular expression that
    is found in a parameter's name holds for it."""
    lr_scheduler_type: str = "warmup-stable-decay"
    """Schedule of the learning rate: `warmup-stable-decay`, `cosine`, `linear` or `constant`."""
    warmup_ratio: float = Field(default=0.05, ge=0, le=1)
    """Share of the budget in which the rate rises linearly from near zero to its peak."""
    decay_ratio: float = Field(default=0.2, ge=0, le=1)
    """Share of the budget, at its end, in which warmup-stable-decay lowers the rate."""
    min_lr_ratio: float = Field(default=0.0, ge=0, le=1)
    """Final rate as a share of the peak (not for `constant`)."""

    optimizer: Annotated[str | dict[str, Any], AddedLater()] = "adamw"
    """What turns gradients into updates: `adamw`; `galore`, `fira`, `apollo`, `apollo-mini` or `adafactor`,
    which need less memory; `restarts`; or a table `{name: galore, rank: 128, …}` with the optimizer's own
    settings."""
    router_aux_loss_coef: Annotated[float | None, Field(ge=0), AddedLater()] = None
    """Weight of what a model's routers are asked beside the likelihood: of a mixture, to use its experts
    alike (reported as `router_loss`); of skip routers, to let their share of the tokens through
    (`skip_loss`). By default what the model itself says; 0 switches it off. It is in no likelihood."""
    weight_decay: float = Field(default=0.1, ge=0)
    """AdamW's decoupled decay. It acts on the weight matrices of the body only: not on biases, norms, other
    vectors, embeddings, or the output head (tied and untied heads are treated alike)."""
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    """Decay of AdamW's first moment."""
    adam_beta2: float = Field(default=0.95, ge=0, lt=1)
    """Decay of AdamW's second moment; 0.95 forgets sooner than the usual 0.999, which short runs need."""
    adam_epsilon: float = Field(default=1e-8, gt=0)
    """Added to the root of AdamW's second moment."""
    max_grad_norm: float | None = Field(default=1.0, gt=0)
    """Gradients longer than this are shortened to it; null switches clipping off."""
    trainable: Literal["all", "embeddings", "2x2ls"] | list[str] | dict[str, float] = "all"
    """Which parameters learn: `all`; `embeddings` (input rows, output rows and their bias; the body is
    frozen); `2x2ls` (embeddings, head, the first two and the last two layers; arXiv 2406.11477); or a list of
    regular expressions, of which one must be found in a parameter's name. A table is a freeze schedule: a
    preset or one expression, and the share of the budget until which it holds, as in
    `{embeddings: 0.1, all: 1}`, which freezes the body for the first tenth."""

    bf16: bool = False
    """Compute in bfloat16 by autocast; weights, gradients and optimizer state stay float32."""
    torch_compile: bool = False
    """Compile the model with `torch.compile`: slower to start, often faster on a GPU."""
    fast_kernels: bool = True
    """On a CPU, replace the slowest parts of known model families by equal but faster ones while training
    (see `warmstart.training.kernels`)."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    distributed: Literal["auto", "ddp", "fsdp2"] = "auto"
    """How several processes share the work: what `accelerate launch` was told, else DDP (`auto`); a copy of
    the model per process (`ddp`); or sharded parameters, gradients and optimizer state (`fsdp2`)."""

    eval_steps: int | None = Field(default=None, gt=0)
    """Measure every so many steps. Before the first and after the last step the model is always measured."""
    eval_points: list[float] = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    """Further moments to measure: fractions of the budget (up to 1) or training tokens (above 1)."""
    logging_steps: int = Field(default=10, ge=1)
    """Steps between two entries of the training loss in `events.jsonl` and the trackers."""
    report_to: str | list[str] = "none"
    """Trackers: `none`, `tensorboard`, `wandb`, `mlflow`, `comet_ml`, `trackio`, `swanlab`, …, or a list."""

    save_steps: int | None = Field(default=None, gt=0)
    """Save a checkpoint every so many steps; one is always saved at the end."""
    save_seconds: float | None = Field(default=300.0, gt=0)
    """Save a checkpoint when so many seconds of work have passed since the last one; null switches it off."""
    save_total_limit: int | None = Field(default=2, ge=1)
    """Newest checkpoints to keep; null keeps all."""

    seed: int = Field(default=0, ge=0)
    """Seed of the order of blocks, masking and dropout."""

    @field_validator("lr_scheduler_type", mode="before")
    @classmethod
    def _known_schedule(cls, value: Any) -> Any:
        from warmstart.training.schedule import schedules

        if not isinstance(value, str):
            return value
        name = value.replace("_", "-")
        if name not in schedules:
            try:
                schedules.get(name)
            except UserError as error:
                raise ValueError(f"{error.what}; {error.fix}") from None
        return name

    @field_validator("optimizer")
    @classmethod
    def _known_optimizer(cls, value: Any) -> Any:
        from warmstart.training.optimizer import chosen_optimizer, optimizers

        if value in optimizers.names():  # known without loading it
            return value
        try:
            chosen_optimizer(value)
        except UserError as error:
            raise ValueError(f"{error.what}; {error.fix}" if error.fix else error.what) from None
        return value

    @field_validator("trainable")
    @classmethod
    def _whole_schedule(cls, value: Any) -> Any:
        if isinstance(value, dict):
            ends = list(value.values())
            if not ends or ends[-1] != 1 or ends[0] <= 0 or sorted(set(ends)) != ends:
                raise ValueError("the phases' ends must rise from above 0 to 1")
        return value

    @field_validator("lr_multipliers")
    @classmethod
    def _expressions(cls, value: dict[str, float]) -> dict[str, float]:
        for pattern in value:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression ({error})") from None
        return value

    @field_validator("eval_points")
    @classmethod
    def _positive_points(cls, value: list[float]) -> list[float]:
        if any(point <= 0 for point in value):
            raise ValueError("points are fractions of the budget or numbers of tokens above zero")
        return sorted(set(value))

    @model_validator(mode="after")
    def _one_budget(self) -> TrainSettings:
        names = ("max_tokens", "max_steps", "max_seconds", "num_train_epochs")
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"only one budget can hold, but {' and '.join(given)} are given")
        return self
