"""Options of the probes that learn labels from vectors."""

from __future__ import annotations

from pydantic import Field

from warmstart.foundation.settings import Settings


class ProbeSettings(Settings):
    """Size and training of a probe. Training is that of Voita and Titov, but for the batch."""

    hidden_size: int = Field(default=0, ge=0)
    """Width of a hidden layer (ReLU); 0 for a linear probe."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """First step size of Adam; halved after each pass without a new lowest loss on the held-out tenth."""
    patience: int = Field(default=4, ge=1)
    """Passes in a row without a new lowest loss after which a probe is done."""
    max_epochs: int = Field(default=100, ge=0)
    """Passes at most; 0 leaves the uniform distribution."""
    batch_size: int = Field(default=64, ge=1)
    """Examples per step (paper: 20)."""
    seed: int = 0
    """Seed of the order of examples and of a hidden layer."""
