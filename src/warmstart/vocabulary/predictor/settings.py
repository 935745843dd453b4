"""Options of a hypernetwork (ZeTT) and of its training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from warmstart.foundation.settings import Settings


class NetworkSettings(Settings):
    """Size and kind of the network."""

    residual: Literal["mean", "first", "none"] = "mean"
    """What the network corrects: the `mean` of the pieces' rows or the `first` piece's row (it starts exactly
    there, as in tokenkit), or nothing (`none`, the paper's network: a fresh one predicts noise on the scale
    of the source's rows)."""
    alpha: float = Field(default=1.0, gt=0)
    """Size of corrections: an output of ones moves a row by `alpha` times the mean norm of a source row."""
    hidden_size: int | None = Field(default=None, ge=1)
    """Width of the network; the source's width where not given (the paper's is larger: 768 to 4096)."""
    num_layers: int = Field(default=1, ge=0)
    """Transformer layers over the pieces (paper: 3)."""
    num_heads: int | None = Field(default=None, ge=1)
    """Attention heads; one per 64 dimensions where not given."""
    expansion: float = Field(default=2.0, gt=0)
    """Inner width of feed-forward layers, as a multiple of `hidden_size`."""
    max_pieces: int = Field(default=7, ge=1)
    """Pieces of a token that the network reads (paper: 7, and 16 for byte-level sources); later ones only
    enter the mean."""


class HypernetworkSettings(NetworkSettings):
    """How a hypernetwork is trained for one source checkpoint."""

    warmup_steps: int = Field(default=200, ge=0)
    """Steps in which the network learns to reproduce source rows (paper: 10,000)."""
    warmup_tokens: int = Field(default=1024, ge=1)
    """Source tokens per such step, drawn at random (paper: 16,384)."""
    warmup_pieces: Literal["apart", "itself"] = "apart"
    """What stands for a source token there: the fewest other source tokens that make it up (`apart`), or
    `itself`, the paper's identity, from which a residual network cannot learn anything."""
    warmup_learning_rate: float = Field(default=1e-3, gt=0)
    """Step size there (paper: 3e-4)."""

    max_steps: int = Field(default=1000, ge=0)
    """Steps of the main phase, each with a freshly sampled tokenizer (paper: 190,000)."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak step size there (paper: 6e-5)."""
    lr_scheduler_type: str = "linear"
    """Schedule of the step size in each phase."""
    warmup_ratio: float = Field(default=0.05, ge=0, le=1)
    """Share of each phase in which the step size rises."""
    batch_size: int = Field(default=16, ge=1)
    """Texts per step (paper: 128)."""
    block_size: int = Field(default=128, ge=8)
    """Tokens of a text at most (paper: 128)."""
    vocab_size: int = Field(default=4096, ge=1)
    """Tokens of a sampled vocabulary, units included (paper: 32,768)."""
    pool_size: int = Field(default=2048, ge=1)
    """Last texts whose substrings a vocabulary is sampled from."""
    noise_scale: float = Field(default=1e-5, ge=0)
    """Median deviation of the noise on scores, which sum to one; 0 for none."""
    noise_spread: float = Field(default=4.0, ge=0)
    """Deviation of the logarithm of that deviation."""
    lexical_weight: float = Field(default=0.5, ge=0)
    """Weight of the distance to the source's row, for tokens that the source has."""
    adam_beta2: float = Field(default=0.95, ge=0, lt=1)
    """Decay of AdamW's second moment."""
    weight_decay: float = Field(default=0.01, ge=0)
    """AdamW's decoupled decay."""
    max_grad_norm: float = Field(default=0.1, gt=0)
    """Gradients longer than this are shortened to it."""
    mlm_probability: float = Field(default=0.15, gt=0, lt=1)
    """Share of tokens that are asked for, where the source is a masked model."""
    max_bytes: int = Field(default=20_000_000, ge=1)
    """UTF-8 bytes of text used at most, from the start of the train split."""
    eval_tokenizers: int = Field(default=4, ge=0)
    """Sampled tokenizers on which the result is measured, on the valid split; 0 measures nothing."""
    save_seconds: float = Field(default=300.0, gt=0)
    """Seconds of work between two saved states, from which a stopped run continues."""
    seed: int = Field(default=0, ge=0)
    """Seed of the network's first weights, of the order of texts and of the sampled tokenizers."""
