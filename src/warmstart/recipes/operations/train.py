"""Step type `train`: continue training a checkpoint on text."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from warmstart.corpus.settings import CorpusSettings
from warmstart.foundation.files import atomic_folder
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner
from warmstart.training.settings import TrainSettings

if TYPE_CHECKING:
    from warmstart.corpus import Document


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


@operations.register("train", settings=TrainStep)
def train_step(settings: TrainStep, folder: Path, runner: Runner) -> None:
    """Continue training a checkpoint on text; the artifact holds the model and `training.json`, its curve."""
    from warmstart.checkpoint import Lineage, resolve, save_checkpoint
    from warmstart.corpus import open_corpus, pack
    from warmstart.evaluation import bits_per_byte
    from warmstart.training import train

    source = resolve(settings.source)
    model, tokenizer = source.load_model(), source.load_tokenizer()
    corpus = open_corpus(settings.corpus)
    packed = pack(corpus, tokenizer, "train", settings.block_size)
    held_out = held_out_sample(corpus.documents(settings.eval_split), settings.eval_max_bytes)

    def evaluate(current: Any) -> float:
        measured = bits_per_byte(
            current,
            tokenizer,
            held_out,
            task=source.task,
            context_length=settings.block_size,
            bf16=settings.bf16,
        )
        return measured.bpb

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
                measured={k: v for k, v in measured.items() if not isinstance(v, float) or math.isfinite(v)},
            )
            save_checkpoint(output / "model", model, tokenizer, lineage=lineage)
            for item in list((output / "model").iterdir()):
                item.rename(output / item.name)
            (output / "model").rmdir()
        (output / "training.json").write_text(curve.model_dump_json(), encoding="utf-8")


def held_out_sample(documents: Iterable[Document], max_bytes: int) -> list[str]:
    """Texts of up to `max_bytes` bytes in all, drawn by hash so that they come from all of `documents`."""
    from warmstart.evaluation.bits import limited

    texts = sorted(
        {d.text for d in documents}, key=lambda t: hashlib.blake2b(t.encode("utf-8", "replace")).digest()
    )
    return list(limited(texts, max_bytes))
