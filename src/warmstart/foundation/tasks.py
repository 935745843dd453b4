"""The tasks of language models, in the one spelling that all rooms share."""

from __future__ import annotations

from typing import Literal

Task = Literal["causal", "masked", "seq2seq"]
"""What a model is asked: the next token, the masked ones, or another text (encoder-decoder)."""
