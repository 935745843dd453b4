"""ZeTT: rows written by a hypernetwork that was trained once for the source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings
from warmstart.vocabulary.computed import ComputedMix, Which
from warmstart.vocabulary.mix import RowMix
from warmstart.vocabulary.predictor._contracts import UntrainedNetwork
from warmstart.vocabulary.rows._base import RowContext, initialisers

if TYPE_CHECKING:
    from warmstart.vocabulary.predictor.decomposition import Pieces
    from warmstart.vocabulary.predictor.hypernetwork import Hypernetwork


class ZettSettings(Settings):
    """Options of `zett`."""

    hypernetwork: str = Field(min_length=1)
    """Folder of a hypernetwork trained for this source by the operation `hypernetwork`."""
    reference: str | None = None
    """Checkpoint that the network was trained for, where the source is a fine-tuned variant of it: folder,
    named source or hub id. The network reads the reference's rows; the variant keeps its body."""


@dataclass(frozen=True)
class PredictedRows:
    """Rows that a hypernetwork writes.

    Attributes:
        network: Trained network.
        pieces: Source pieces of the tokens `ids`.
        ids: Target ids that it writes, ascending.
        sources: The matrices that it reads; empty where these are one matrix, which is then handed in.
        folder: Of the network, for errors.
    """

    network: Hypernetwork
    pieces: Pieces
    ids: np.ndarray
    sources: tuple[np.ndarray, ...]
    folder: Path

    def __call__(self, ids: np.ndarray, rows: np.ndarray, *, which: Which, **_: object) -> np.ndarray:
        """The network's rows `(len(ids), d)`: those of its own output for `which`."""
        number = int(which == "head")
        if number >= self.network.matrices:
            raise UserError(
                "the hypernetwork was trained on tied rows and has no output for a head",
                where=self.folder,
                fix="train one for this source",
            )
        chosen = self.pieces.take(np.searchsorted(self.ids, ids))
        return self.network.rows(self.sources or (rows,), chosen, number)


@initialisers.register(
    "zett",
    settings=ZettSettings,
    title="Zero-Shot Tokenizer Transfer",
    arxiv="2405.07883",
    tags=("dense", "all-rows"),
)
def zett(context: RowContext, settings: ZettSettings) -> RowMix:
    """`E_t[t] = H(pieces of t)`: a network trained for the source writes the rows of an unseen tokenizer.

    No text and no further training is needed; input and head rows come from outputs of their own. As
    published, tokens that both vocabularies have are predicted too (`copy_overlap: true` copies them);
    special tokens are copied by role. A token that the source has is its own only piece, others are cut by
    the source tokenizer without splitting into words (at byte level where they are parts of characters).
    Tokens that the source cannot write are drawn from N(mu, sd); the released code has trained vectors for
    them. New tokens have the mean head bias, with which the network was trained; the released code can
    predict it.

    A fine-tuned variant of the source needs no network of its own: with `reference` the rows are those that
    the network writes for the model it was trained for, special rows are the variant's. (The paper's further
    step, adding a share of what continued training of the reference changed in its body, is not done here.)

    Untied sources keep both their matrices in memory until the rows are written.

    Returns:
        A mix whose rows hold no weights but the network, `(V_target, V_source)`.

    Raises:
        UserError: No hypernetwork in the folder, one that was trained for another source, or a reference of
            another width.
    """
    from warmstart.vocabulary.predictor.decomposition import Pieces, SourcePieces
    from warmstart.vocabulary.predictor.hypernetwork import Hypernetwork, source_identity

    folder = Path(settings.hypernetwork).expanduser()
    network, described = Hypernetwork.load(folder)
    if network.matrices == 2 and context.head_rows is None:
        raise UserError(
            "the hypernetwork was trained for a source with a head of its own, and this one's is tied",
            where=folder,
            fix="train one for this source",
        )
    given = (context.rows,) if context.head_rows is None else (context.rows, context.head_rows)
    sources = given if settings.reference is None else _rows_of(settings.reference, context)
    identity = source_identity(context.source_tokenizer, sources[: network.matrices])
    differing = [name for name, value in identity.items() if described.get(name) != value]
    if differing:
        raise UserError(
            f"the hypernetwork was trained for another source, {described.get('source', 'unknown')}: its "
            f"{' and '.join(differing)} differ",
            where=folder,
            fix="train one for this source with `warmstart hypernetwork`, or, where the source is a "
            "fine-tuned variant, name as `reference` the checkpoint that it was trained for",
        )
    wanted = context.wanted
    cut = SourcePieces(context.source_tokenizer).cut([context.vocab.target[i] for i in wanted])
    ids = wanted[np.array([bool(pieces) for pieces in cut], dtype=bool)]
    pieces = Pieces.of([pieces for pieces in cut if pieces])
    held = sources[: network.matrices] if network.matrices == 2 or settings.reference is not None else ()
    return ComputedMix.of(context.shape, ids, PredictedRows(network, pieces, ids, held, folder))


def _rows_of(reference: str, context: RowContext) -> tuple[np.ndarray, ...]:
    """Input rows and, where it has its own, head rows of the checkpoint that a network was trained for."""
    from warmstart.checkpoint import resolve
    from warmstart.vocabulary.surgery import as_rows, vocabulary_tensors

    checkpoint = resolve(reference)
    found = vocabulary_tensors(checkpoint.load_model())
    rows = as_rows(found.rows).astype(context.rows.dtype, copy=False)
    if rows.shape[1] != context.rows.shape[1]:
        raise UserError(
            f"the reference has rows of width {rows.shape[1]}, the source of width {context.rows.shape[1]}",
            where=checkpoint.name,
            fix="name the checkpoint that the source was fine-tuned from",
        )
    if found.head is None:
        return (rows,)
    return rows, as_rows(found.head).astype(context.rows.dtype, copy=False)


zett.contract_settings = UntrainedNetwork()  # type: ignore[attr-defined]
