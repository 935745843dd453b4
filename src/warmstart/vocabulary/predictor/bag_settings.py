"""Options of HyperOFA's network."""

from __future__ import annotations

from pydantic import Field

from warmstart.foundation.settings import Settings


class BagNetworkSettings(Settings):
    """Size and training of HyperOFA's network. The defaults suit small sources."""

    hidden_size: int = Field(default=128, ge=1)
    """Width of one direction of the LSTM (paper: 800 for RoBERTa, 1600 at 400 coordinates)."""
    num_layers: int = Field(default=1, ge=1)
    """Stacked BiLSTMs (paper: 2 for RoBERTa, 4 for XLM-R; the released settings have 1)."""
    dropout: float = Field(default=0.4, ge=0, lt=1)
    """Share of values dropped in training (released settings: 0.2)."""
    max_words: int = Field(default=64, ge=1)
    """Most words of a bag, the most frequent ones (paper: 256)."""
    loss_mix: float = Field(default=0.1, ge=0, le=1)
    """Weight of the contrastive part of the loss; the rest is the relative absolute distance."""
    contrast_temperature: float = Field(default=0.5, gt=0)
    """Temperature of the contrastive part (paper: 0.5 for RoBERTa, 0.25 for XLM-R)."""
    epochs: int = Field(default=40, ge=0)
    """Passes over the source tokens that have a bag (paper: 80 to 470)."""
    batch_size: int = Field(default=128, ge=2)
    """Tokens per step."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """First step size of Adam (paper: 1e-4); times 0.95 after every 10 passes."""
    validation: float = Field(default=0.025, ge=0, lt=1)
    """Share of these tokens held out, on which the mean cosine to the true rows is reported."""
