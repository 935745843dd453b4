"""What a search over sub-networks can be told."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from warmstart.shape.search.masks import MaskSettings
from warmstart.shape.search.space import Range
from warmstart.shape.shrink import ShrinkSettings


class SearchSettings(ShrinkSettings):
    """Which sub-networks there are, how they are cut, and how long is searched."""

    to: dict[str, int] = {}
    """Sizes that all sub-networks share, by their configuration keys."""
    space: dict[str, list[int] | Range] = {}
    """Sizes that differ, by their configuration keys: `{hidden_size: [64, 128], num_hidden_layers: {min: 2},
    intermediate_size: {min: 64, step: 64}}`. What the family cannot have is left out."""
    masks: MaskSettings | None = None
    """Instead of a space: sub-networks that masks make of the model, `{granularity: small, heads: …, units:
    …}`, for a model that was trained with `train-supernet`. Settings of the cut do not matter then."""
    export: Literal["uniform", "per-layer", "masked", "none"] = "none"
    """What a sub-network of masks becomes: a smaller model, where all layers are alike and the family can
    have it (`uniform`; others are not searched), one whose layers have their own sizes, which opens with this
    library (`per-layer`), one of the old sizes with zeros in the place of what is masked (`masked`), or
    nothing."""
    search: str | dict[str, Any] = "evolution"
    """How to search: `evolution`, `random`, `stratified`, `local` or `nsga2`; or a table `{name: evolution,
    …}` with the way's own settings."""
    evaluations: int = Field(default=100, ge=1)
    """Sub-networks that are measured at most, in each bin."""
    bf16: bool = False
    """Compute in bfloat16."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if bool(self.space) == (self.masks is not None):
            raise ValueError("name the sub-networks either by `space` or by `masks`")
        return self
