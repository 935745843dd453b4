"""Word pairs that bring the vectors of two languages into one space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from warmstart.foundation.errors import UserError

if TYPE_CHECKING:
    from warmstart.vocabulary.aux_space.space import AuxSpace
    from warmstart.vocabulary.rows._base import RowContext

Anchors = Literal["auto", "dictionary", "parallel", "identical", "none"]
FEWEST_SHARED = 20
"""Shared words below which two spaces cannot be aligned by them."""


def anchor_pairs(
    context: RowContext, method: str, choice: Anchors, source: AuxSpace, target: AuxSpace
) -> list[tuple[str, str]] | None:
    """Pairs (source word, target word); None where the spaces are one already (`none`).

    Args:
        context: Of the initialiser; brings the dictionary or the parallel sentences.
        method: Name of the initialiser, for errors.
        choice: Which pairs; `auto` takes dictionary, parallel or identical words, the first that is given.
        source: Word vectors of the source language.
        target: Word vectors of the target language.

    Raises:
        UserError: What `choice` asks for was not given, or too few words are shared.
    """
    if choice == "auto":
        choice = "identical" if context.parallel is None else "parallel"
        choice = choice if context.dictionary is None else "dictionary"
    if choice == "none":
        return None
    if choice == "dictionary":
        dictionary: list[tuple[str, str]] = context.need("dictionary", method)
        return dictionary
    if choice == "parallel":
        from warmstart.vocabulary.alignment import mine_dictionary

        return mine_dictionary(context.need("parallel", method))
    shared = [name for name in source.names if name in target]
    if len(shared) < FEWEST_SHARED:
        raise UserError(
            f"the two texts share only {len(shared)} words with vectors, too few to align their vectors",
            where=f"initialiser {method}",
            fix="add dictionary: … or parallel: … to the transplant settings",
        )
    return [(name, name) for name in shared]
