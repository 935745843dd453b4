"""Step type `train`: continue training a checkpoint on text."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from warmstart.corpus.settings import CorpusSettings
from warmstart.foundation.files import atomic_folder
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner
from warmstart.training.settings import TrainSettings

if TYPE_CHECKING:
    from warmstart.checkpoint import Lineage
    from warmstart.corpus import Document
    from warmstart.foundation.tasks import Task


class TrainStep(TrainSettings):
    """Continue training a checkpoint on text, measuring bits per byte of held-out text on the way."""

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


@operations.register("train", settings=TrainStep, tags=("trains",))
def train_step(settings: TrainStep, folder: Path, runner: Runner) -> None:
    """Continue training a checkpoint on text; the artifact holds the model and `training.json`, its curve."""
    from warmstart.checkpoint import Lineage, resolve
    from warmstart.corpus import open_corpus, pack
    from warmstart.training import train

    source = resolve(settings.source)
    model, tokenizer = source.load_model(), source.load_tokenizer()
    corpus = open_corpus(settings.corpus)
    packed = pack(corpus, tokenizer, "train", settings.block_size)
    held_out = held_out_sample(corpus.documents(settings.eval_split), settings.eval_max_bytes)

    evaluate = held_out_bpb(tokenizer, held_out, source.task, settings.block_size, settings.bf16)
    plain = {name: getattr(settings, name) for name in TrainSettings.model_fields}
    outcome = train(
        model, tokenizer, packed, TrainSettings.model_validate(plain), folder / "run", evaluate=evaluate
    )
    curve = outcome.curve
    measured = {
        "bits per byte before": curve.points[0].bpb,
        "bits per byte after": curve.final,
        "training tokens": outcome.tokens,
        "training seconds": round(outcome.seconds, 1),
        "training FLOPs": curve.points[-1].flops,
    }
    with atomic_folder(folder / "output", replace=True) as output:
        if settings.keep:
            lineage = Lineage.of(
                "train",
                settings.model_dump(mode="json", exclude_unset=True),
                parents=[source],
                data={corpus.name: corpus.fingerprint},
                seeds={"seed": settings.seed},
                measured=finite(measured),
            )
            save_into(output, model, tokenizer, lineage)
        (output / "training.json").write_text(curve.model_dump_json(), encoding="utf-8")


def held_out_bpb(
    tokenizer: Any, texts: list[str], task: Task, context_length: int, bf16: bool
) -> Callable[[Any], float]:
    """What evaluation points of training call: bits per byte of `texts` under the model as it is."""
    from warmstart.evaluation import bits_per_byte

    def evaluate(model: Any) -> float:
        measured = bits_per_byte(model, tokenizer, texts, task=task, context_length=context_length, bf16=bf16)
        return measured.bpb

    return evaluate


def save_into(folder: Path, model: Any, tokenizer: Any, lineage: Lineage) -> None:
    """Save a checkpoint in a folder that exists, beside what else is in it."""
    from warmstart.checkpoint import save_checkpoint

    save_checkpoint(folder / "model", model, tokenizer, lineage=lineage)
    for item in list((folder / "model").iterdir()):
        item.rename(folder / item.name)
    (folder / "model").rmdir()


def finite(measured: dict[str, Any]) -> dict[str, Any]:
    """Without numbers that JSON cannot hold."""
    return {k: v for k, v in measured.items() if not isinstance(v, float) or math.isfinite(v)}


def held_out_sample(documents: Iterable[Document], max_bytes: int) -> list[str]:
    """Texts of up to `max_bytes` bytes in all, drawn by hash so that they come from all of `documents`."""
    from warmstart.evaluation.bits import limited

    texts = sorted(
        {d.text for d in documents}, key=lambda t: hashlib.blake2b(t.encode("utf-8", "replace")).digest()
    )
    return list(limited(texts, max_bytes))
