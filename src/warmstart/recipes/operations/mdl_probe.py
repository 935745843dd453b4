"""Step type `mdl-probe`: how many bits do labels cost whoever holds a checkpoint's input rows?"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from warmstart.evaluation.probe_settings import ProbeSettings
from warmstart.foundation.files import atomic_folder
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner


class MdlProbeSettings(ProbeSettings):
    """Code length of labels given the input rows of a checkpoint, frozen and learned along."""

    source: str = Field(min_length=1)
    """Checkpoint whose input rows are probed: folder, hub id, `name@revision`, named source or `${step}`."""
    labels: str = Field(min_length=1)
    """Labelled texts: `python-tokens` (tokens of the standard library's code with their kind), or a set or
    file of labelled texts, such as `languages` or `python-stdlib/package`."""
    unit: Literal["texts", "words"] = "texts"
    """What has a label: the texts, or the different words in them that stand under one label only."""
    max_examples: int = Field(default=4000, ge=10)
    """Examples at most, drawn at random; all arms of a comparison get the same ones."""
    max_pieces: int = Field(default=64, ge=1)
    """Tokens of an example at most; its vector is the mean of their rows."""


@operations.register(
    "mdl-probe",
    settings=MdlProbeSettings,
    title="Information-Theoretic Probing with Minimum Description Length",
    arxiv="2003.12298",
    tags=("measures",),
)
def mdl_probe_step(settings: MdlProbeSettings, folder: Path, runner: Runner) -> None:
    """Measure code lengths of labels; the artifact holds `mdl.json`.

    `frozen_bits` and `tuned_bits` are online code lengths with the rows as they are and learned along,
    `uniform_bits` and `frequency_bits` those of codes that know no rows.
    """
    from warmstart.recipes.probing import probe_rows

    found = probe_rows(settings).model_dump_json(indent=1)
    with atomic_folder(folder / "output", replace=True) as output:
        (output / "mdl.json").write_text(found, encoding="utf-8")
