"""Entries drawn at random: the baseline of every other way."""

from __future__ import annotations

from warmstart.shape.importance import ImportanceContext, ImportanceSettings, Scores, importances


@importances.register("random", settings=ImportanceSettings, title="Entries drawn at random")
def random(settings: ImportanceSettings, context: ImportanceContext) -> Scores:
    """Uniform scores, drawn from the seed: each group has its own, the hidden axis one for all layers."""
    return {group.name: context.rng.random(group.size) for group in context.groups}
