"""Step type `linear-probe`: what can a linear map read off the states of a model?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from warmstart.corpus.settings import CorpusSettings
from warmstart.foundation.errors import UserError
from warmstart.foundation.files import atomic_folder
from warmstart.foundation.settings import Settings
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from warmstart.corpus import Document


class LinearProbeSettings(Settings):
    """Labels of tokens or of texts, found by a linear map in the hidden states of a language model."""

    source: str = Field(min_length=1)
    """Causal or masked checkpoint: folder, hub id or `${step}`."""
    corpus: CorpusSettings
    """Texts with labels: the probe learns from `train`, is tuned on `valid` and reported on `test`."""
    labels: str = Field(min_length=1)
    """Field with the labels: one number or word for the text (its states are averaged), or a list of one per
    token."""
    layer: int | None = None
    """Layer of the states: 0 is the embedding, -1 the last; the middle one where not given."""
    max_texts: int = Field(default=400, ge=1)
    """Texts of each part at most, the first ones."""
    context_length: int = Field(default=512, ge=2)
    """Tokens that the model sees at once; longer texts are refused."""


@operations.register("linear-probe", settings=LinearProbeSettings, tags=("measures",))
def linear_probe_step(settings: LinearProbeSettings, folder: Path, runner: Runner) -> None:
    """Measure how well labels are found in hidden states; the artifact holds `linear-probe.json`."""
    from itertools import islice

    import warmstart.recipes.sources  # noqa: F401  named sources become known to `resolve`
    from warmstart.checkpoint import resolve
    from warmstart.corpus import open_corpus
    from warmstart.corpus.splitting import Split
    from warmstart.evaluation.linear_probe import linear_probe, token_states

    checkpoint = resolve(settings.source)
    model, tokenizer = checkpoint.load_model(), checkpoint.load_tokenizer()
    fields = tuple(dict.fromkeys([*settings.corpus.metadata_fields, settings.labels]))
    corpus = open_corpus(settings.corpus.model_copy(update={"metadata_fields": fields}))

    def examples(part: Split) -> tuple[np.ndarray, np.ndarray]:
        documents = list(islice(corpus.documents(part), settings.max_texts))
        states = token_states(
            model,
            tokenizer,
            [document.text for document in documents],
            task=checkpoint.task,
            layer=settings.layer,
            context_length=settings.context_length,
        )
        return labelled(documents, states, settings.labels)

    found = linear_probe(examples("train"), examples("valid"), examples("test"))
    with atomic_folder(folder / "output", replace=True) as output:
        (output / "linear-probe.json").write_text(found.model_dump_json(indent=1), encoding="utf-8")


def labelled(
    documents: Sequence[Document], states: Sequence[np.ndarray], field: str
) -> tuple[np.ndarray, np.ndarray]:
    """States `(n, H)` and labels `(n,)` of tokens, or of texts where a document has a single label.

    Args:
        documents: With the labels in their metadata.
        states: Of the tokens of each document.
        field: Name of the labels.

    Raises:
        UserError: As many labels as tokens are not there, or texts with one label and with many are mixed.
    """
    rows: list[np.ndarray] = []
    labels: list[str] = []
    kinds = set()
    for document, table in zip(documents, states, strict=True):
        given = document.metadata.get(field)
        if isinstance(given, list):
            if len(given) != len(table):
                raise UserError(
                    f"{len(given)} labels in {field!r} for {len(table)} tokens",
                    where=document.id,
                    fix="give one label per token of this tokenizer, or a single one for the text",
                )
            rows.append(table)
            labels += map(str, given)
        elif given is None or not len(table):
            raise UserError(f"there is no label in {field!r}", where=document.id, fix="give each text one")
        else:
            rows.append(table.mean(axis=0, keepdims=True))
            labels.append(str(given))
        kinds.add(isinstance(given, list))
    if len(kinds) > 1:
        raise UserError(f"{field!r} holds labels of texts and labels of tokens", fix="use one of the two")
    return np.concatenate(rows), np.array(labels)
