"""Step type `distil`: an encoder learns the sentence vectors of another one across a translation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from pydantic import Field

from warmstart.foundation.files import atomic_folder
from warmstart.recipes.distil import DistilOptions
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner


class DistilSettings(DistilOptions):
    """Train an encoder so that a translation gets the vector that its teacher gives the original."""

    source: str = Field(min_length=1)
    """Checkpoint of the student: folder, hub id, `name@revision` or `${step}`."""
    teacher: str = Field(min_length=1)
    """Checkpoint of the teacher; it stays as it is."""
    parallel: str
    """Sentence pairs: the teacher reads the first text, the student the second."""
    max_pairs: int | None = Field(default=None, gt=0)
    """Pairs at most, chosen by hash."""


@operations.register(
    "distil",
    settings=DistilSettings,
    title="Making Monolingual Sentence Embeddings Multilingual using Knowledge Distillation",
    arxiv="2004.09813",
)
def distil_step(settings: DistilSettings, folder: Path, runner: Runner) -> None:
    """Distil sentence vectors across a translation; the artifact holds the student and `distil.json`.

    The teacher encodes every sentence once, in a step that all students share. A run that is killed begins
    anew: it is meant for minutes.
    """
    from warmstart.checkpoint import Lineage, resolve, save_checkpoint
    from warmstart.corpus import open_pairs
    from warmstart.recipes.distil import distil, read_pairs

    shared = {"parallel": settings.parallel, "max_pairs": settings.max_pairs, "bf16": settings.bf16}
    goals = runner.step("embed", shared | {"source": settings.teacher}, name="vectors of the teacher")
    student, teacher = resolve(settings.source), resolve(settings.teacher)
    model, tokenizer = student.load_model(as_stored=True), student.load_tokenizer()
    _, texts = read_pairs(settings.parallel, "train", settings.max_pairs)
    plain = {name: getattr(settings, name) for name in DistilOptions.model_fields}
    options = DistilOptions.model_validate(plain)
    measured = distil(model, tokenizer, texts, np.load(goals / "vectors.npy"), options)
    lineage = Lineage.of(
        "distil",
        settings.model_dump(mode="json", exclude_unset=True),
        parents=[student, teacher],
        data={settings.parallel: open_pairs(settings.parallel).fingerprint},
        seeds={"seed": settings.seed},
        measured=measured,
    )
    with atomic_folder(folder / "output", replace=True) as output:
        save_checkpoint(output / "model", model, tokenizer, lineage=lineage)
        for item in list((output / "model").iterdir()):
            item.rename(output / item.name)
        (output / "model").rmdir()
        (output / "distil.json").write_text(json.dumps(measured, indent=1), encoding="utf-8")
