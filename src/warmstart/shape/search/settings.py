"""What a search over sub-networks can be told."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from warmstart.shape.search.space import Range
from warmstart.shape.shrink import ShrinkSettings


class SearchSettings(ShrinkSettings):
    """Which sub-networks there are, how they are cut, and how long is searched."""

    to: dict[str, int] = {}
    """Sizes that all sub-networks share, by their configuration keys."""
    space: dict[str, list[int] | Range] = Field(min_length=1)
    """Sizes that differ, by their configuration keys: `{hidden_size: [64, 128], num_hidden_layers: {min: 2},
    intermediate_size: {min: 64, step: 64}}`. What the family cannot have is left out."""
    search: str | dict[str, Any] = "evolution"
    """How to search: `evolution`, `random`, `stratified`, `local` or `nsga2`; or a table `{name: evolution,
    …}` with the way's own settings."""
    evaluations: int = Field(default=100, ge=1)
    """Sub-networks that are measured at most, in each bin."""
    bf16: bool = False
    """Compute in bfloat16."""
