"""What steps that train share: settings, what they measure on the way, and the artifact that they leave."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from warmstart.corpus.settings import CorpusSettings
from warmstart.foundation.errors import UserError
from warmstart.foundation.files import atomic_folder
from warmstart.foundation.settings import AddedLater
from warmstart.training.settings import TrainSettings

if TYPE_CHECKING:
    from warmstart.checkpoint import Checkpoint
    from warmstart.corpus import Document
    from warmstart.evaluation.curves import Curve
    from warmstart.foundation.tasks import Task
    from warmstart.training import TrainResult

_SAMPLED = 256
"""Blocks from which the length of a teacher's cut is told."""
_BUDGETS = ("max_tokens", "max_steps", "max_seconds", "num_train_epochs")


class TrainingStep(TrainSettings):
    """Settings of any step tagged `trains`."""

    unbudgeted_epochs: ClassVar[float | None] = None
    """Passes over the text where no budget is given."""

    source: str = Field(min_length=1)
    """Checkpoint to train from: folder, hub id, `name@revision`, named source or `${step}`."""
    corpus: CorpusSettings
    """Text to train on."""
    eval_split: Literal["valid", "test"] = "valid"
    """Part of the corpus that evaluation points measure."""
    eval_max_bytes: int = 65536
    """UTF-8 bytes of held-out text measured at each evaluation point."""
    keep: bool = True
    """Whether the artifact holds the trained model, or only its curve."""
    count_on: Annotated[bool, AddedLater()] = False
    """Whether the curve begins at what the training that made the source has cost: its steps, tokens, seconds
    and FLOPs. The budget is that of this training alone."""

    def spent(self) -> Curve | None:
        """What training has cost that made the source, where it counts.

        Raises:
            UserError: The source is not the artifact of a step that trains.
        """
        from warmstart.checkpoint import resolve
        from warmstart.evaluation.curves import Curve

        if not self.count_on:
            return None
        made = resolve(self.source).path / "training.json"
        curve = Curve.model_validate_json(made.read_text(encoding="utf-8")) if made.is_file() else None
        if curve is None or not curve.points:
            raise UserError(
                "the source has no curve to count on from",
                where=self.source,
                fix="leave count_on out, or train from the output of a step that trains",
            )
        return curve

    def loop(self) -> TrainSettings:
        """What the training loop is told; refuses what `spent` refuses, before anything is trained."""
        self.spent()
        plain = {name: getattr(self, name) for name in TrainSettings.model_fields}
        if all(plain[name] is None for name in _BUDGETS):
            plain["num_train_epochs"] = self.unbudgeted_epochs
        return TrainSettings.model_validate(plain)

    def teachers(self) -> list[tuple[str, Checkpoint]]:
        """The checkpoint that the objective's table names as its teacher, with its role in the lineage."""
        from warmstart.checkpoint import resolve

        named = self._asked("teacher")
        return [("teacher", resolve(named))] if named else []

    def parts(self, tokenizer: Any, blocks: Any) -> dict[str, Any]:
        """What the objective needs beside its table: the text in the tokens of a teacher with others.

        Args:
            tokenizer: Of the student.
            blocks: What is trained on; the first ones tell how many tokens the teacher reads.
        """
        named, kind = self._asked("teacher"), self._asked("alignment")
        if not named or kind not in ("offsets", "warp"):
            return {}
        from warmstart.checkpoint import resolve
        from warmstart.vocabulary.recut import Recut

        recut = Recut(tokenizer, resolve(named).load_tokenizer(), kind)
        first = (np.asarray(blocks[i]) for i in range(min(len(blocks), _SAMPLED)))
        recut.measure(block[0] if block.ndim == 2 else block for block in first)
        return {"recut": recut}

    def refuse_objective(self, who: str, *, where: str) -> None:
        """For steps that have an objective of their own: raise `UserError` where another one is asked for."""
        if self.objective != "auto":
            raise UserError(f"{who} no other objective", where=where, fix="leave `objective` out")

    def _asked(self, option: str) -> Any:
        """An option of the objective's table."""
        return self.objective.get(option) if isinstance(self.objective, dict) else None


class RowTrainingStep(TrainingStep):
    """Settings of a step that trains rows of the vocabulary on short texts, at a constant rate."""

    per_device_train_batch_size: int = Field(default=16, ge=1)
    """Texts per process and forward pass."""
    lr_scheduler_type: str = "constant"
    """Schedule of the learning rate: `warmup-stable-decay`, `cosine`, `linear` or `constant`."""
    warmup_ratio: float = Field(default=0.0, ge=0, le=1)
    """Share of the budget in which the rate rises linearly from near zero to its peak."""


def leave(
    folder: Path,
    operation: str,
    settings: TrainingStep,
    trained: tuple[Any, Any],
    outcome: TrainResult,
    *,
    parents: Sequence[Checkpoint | tuple[str, Checkpoint]],
    data: Mapping[str, str],
    measured: Mapping[str, Any] | None = None,
    points: str = "bits per byte",
    also: Callable[[Path], None] | None = None,
    beside: Callable[[Path], None] | None = None,
) -> None:
    """Leave the artifact in `folder/output`: `training.json`, the curve, and with `keep` the checkpoint.

    Args:
        folder: The step's folder.
        operation: Name of the step type, for the lineage.
        settings: The step's settings.
        trained: Model and tokenizer.
        outcome: What the training loop returned.
        parents: Checkpoints that the model comes from, also as `(role, checkpoint)`.
        data: Name of the corpus to its fingerprint.
        measured: Numbers for the lineage; the ends of the curve, and what training cost, are added.
        points: What the points of the curve are.
        also: Writes what else belongs into the checkpoint's folder.
        beside: Writes what belongs beside the curve, also without `keep`.
    """
    from warmstart.checkpoint import Lineage, save_checkpoint

    model, tokenizer = trained
    curve, spent = outcome.curve, settings.spent()
    found = dict(measured or {})
    if curve.points:
        found |= {f"{points} before": curve.points[0].bpb, f"{points} after": curve.final}
        found["training FLOPs"] = curve.points[-1].flops
    found |= {"training tokens": outcome.tokens, "training seconds": round(outcome.seconds, 1)}
    with atomic_folder(folder / "output", replace=True) as output:
        if settings.keep:
            lineage = Lineage.of(
                operation,
                settings.model_dump(mode="json", exclude_unset=True),
                parents=parents,
                data=data,
                seeds={"seed": settings.seed},
                measured=finite(found),
            )
            save_checkpoint(output / "model", model, tokenizer, lineage=lineage)
            for item in list((output / "model").iterdir()):
                item.rename(output / item.name)
            (output / "model").rmdir()
            if also:
                also(output)
        whole = curve if spent is None else counted_on(curve, spent)
        (output / "training.json").write_text(whole.model_dump_json(), encoding="utf-8")
        if beside:
            beside(output)


def counted_on(curve: Curve, spent: Curve) -> Curve:
    """The curve moved to where another one ends."""
    last = spent.points[-1]
    points = [
        point.model_copy(
            update={
                "step": point.step + last.step,
                "tokens": point.tokens + last.tokens,
                "seconds": point.seconds + last.seconds,
                "flops": point.flops + last.flops,
            }
        )
        for point in curve.points
    ]
    return curve.model_copy(update={"points": points})


def finite(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Without numbers that JSON cannot hold."""
    return {k: v for k, v in measured.items() if not isinstance(v, float) or math.isfinite(v)}


def held_out_bpb(
    tokenizer: Any, texts: list[str], task: Task, context_length: int, bf16: bool
) -> Callable[[Any], float]:
    """What evaluation points of training call: bits per byte of `texts` under the model as it is."""
    from warmstart.evaluation import bits_per_byte

    def evaluate(model: Any) -> float:
        measured = bits_per_byte(model, tokenizer, texts, task=task, context_length=context_length, bf16=bf16)
        return measured.bpb

    return evaluate


def held_out_sample(documents: Iterable[Document], max_bytes: int) -> list[str]:
    """Texts of up to `max_bytes` bytes in all, drawn by hash so that they come from all of `documents`."""
    from warmstart.evaluation.bits import limited

    texts = sorted(
        {d.text for d in documents}, key=lambda t: hashlib.blake2b(t.encode("utf-8", "replace")).digest()
    )
    return list(limited(texts, max_bytes))
