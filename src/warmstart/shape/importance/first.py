"""The first entries, in the order in which the model has them."""

from __future__ import annotations

import numpy as np

from warmstart.shape.importance import ImportanceContext, ImportanceSettings, Scores, importances


@importances.register(
    "first",
    settings=ImportanceSettings,
    title="Structural Pruning of Pre-trained Language Models via Neural Architecture Search",
    arxiv="2405.02267",
)
def first(settings: ImportanceSettings, context: ImportanceContext) -> Scores:
    """`score_i = -i`: a prefix, as whittle cuts its sub-networks.

    Right for a model that was trained with prefixes, or whose entries were put in order before; for any other
    it is a choice without reason, like `random`.
    """
    return {group.name: -np.arange(group.size, dtype=float) for group in context.groups}
