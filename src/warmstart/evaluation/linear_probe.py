"""Linear probes of hidden states: what of a label can a linear map read off a layer?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from warmstart.foundation.errors import UserError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Strengths that are tried, as shares of the number of examples."""
_POSITIONS = 4096


class LinearProbe(BaseModel):
    """How well a linear map finds labels of states that it has not seen."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    accuracy: float
    """Share of test examples whose label has the largest score."""
    majority: float
    """The same for always naming the most frequent label of the training part."""
    classes: int
    """Labels in the training part."""
    train: int
    """Examples that the map was fitted to."""
    test: int
    """Examples that are reported."""
    ridge: float
    """Strength that was best on the valid part."""


def linear_probe(
    train: tuple[np.ndarray, np.ndarray],
    valid: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    ridges: Sequence[float] = RIDGES,
) -> LinearProbe:
    """Fit by least squares to indicators of the labels, with a ridge chosen on `valid`.

    States are centred and divided by their deviations on `train` (dimensions without any are dropped). The
    fit is exact, so equal states give an equal number on every machine up to rounding.

    Args:
        train: States `(n, d)` and labels `(n,)`.
        valid: The same to choose the ridge; the smallest of equals is taken.
        test: The same to report. A label that `train` lacks is never found.
        ridges: Strengths to try, as shares of n.

    Raises:
        UserError: An empty part, or a single label in `train`.
    """
    if not all(len(part[1]) for part in (train, valid, test)):
        raise UserError("a probe needs examples in the train, valid and test parts")
    classes, goal = np.unique(train[1], return_inverse=True)
    if len(classes) < 2:
        raise UserError(f"a probe needs two labels, and all examples have {classes[0]}")
    states = np.asarray(train[0], dtype=np.float64)
    mean, spread = states.mean(0), states.std(0)
    alive = spread > 1e-12 * max(float(spread.max()), 1e-300)

    def scaled(table: np.ndarray) -> np.ndarray:
        return np.asarray((table[:, alive].astype(np.float64) - mean[alive]) / spread[alive])

    x, y = scaled(states), np.eye(len(classes))[goal]
    values, axes = np.linalg.eigh(x.T @ x / len(x))
    target = axes.T @ (x.T @ (y - y.mean(0))) / len(x)

    def accuracy(part: tuple[np.ndarray, np.ndarray], ridge: float) -> float:
        weights = axes @ (target / (np.maximum(values, 0) + ridge)[:, None])
        found = classes[(scaled(part[0]) @ weights + y.mean(0)).argmax(1)]
        return float((found == part[1]).mean())

    best = max(sorted(ridges), key=lambda ridge: accuracy(valid, ridge))
    usual = classes[np.bincount(goal).argmax()]
    return LinearProbe(
        accuracy=accuracy(test, best),
        majority=float((test[1] == usual).mean()),
        classes=len(classes),
        train=len(goal),
        test=len(test[1]),
        ridge=best,
    )


def token_states(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    task: str,
    layer: int | None = None,
    context_length: int = 512,
) -> list[np.ndarray]:
    """States `(tokens, H)` of the tokens of each text, without those of special tokens around it.

    Args:
        model: A causal or masked language model.
        tokenizer: Its tokenizer.
        texts: Texts; each is read on its own.
        task: `causal` or `masked`.
        layer: As in transformers: 0 is the embedding, -1 the last; the middle one where not given.
        context_length: Positions that the model sees at once; longer texts are refused.

    Raises:
        UserError: An encoder-decoder, no such layer, or a text that is too long.
    """
    import torch

    from warmstart.evaluation.head import unwrap
    from warmstart.evaluation.likelihood import max_positions, measuring
    from warmstart.evaluation.special import start_token, surrounding

    if task not in ("causal", "masked"):
        raise UserError(f"states of {task} models are not probed")
    before, after = ([start_token(tokenizer)], []) if task == "causal" else surrounding(tokenizer)
    encoded = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    limit = min(context_length, max_positions(model) or context_length)
    whole = [[*before, *ids, *after] for ids in encoded]
    if whole and (longest := max(map(len, whole))) > limit:
        raise UserError(
            f"a text has {longest} tokens and the model sees {limit} at once", fix="give shorter texts"
        )
    body: Any = unwrap(model).base_model
    device = next(model.parameters()).device
    order = sorted(range(len(whole)), key=lambda i: len(whole[i]))
    found: list[np.ndarray] = [np.empty(0)] * len(whole)
    with measuring(model):
        while order:
            size = max(1, _POSITIONS // len(whole[order[-1]]))
            group, order = order[-size:], order[:-size]
            width = max(len(whole[i]) for i in group)
            ids, seen = np.zeros((len(group), width), np.int64), np.zeros((len(group), width), np.int64)
            for row, i in enumerate(group):
                ids[row, : len(whole[i])], seen[row, : len(whole[i])] = whole[i], 1
            states = body(
                input_ids=torch.from_numpy(ids).to(device),
                attention_mask=torch.from_numpy(seen).to(device),
                output_hidden_states=True,
                return_dict=True,
            ).hidden_states
            place = len(states) // 2 if layer is None else layer
            if not -len(states) <= place < len(states):
                raise UserError(
                    f"there is no layer {layer}", fix=f"choose one from 0 to {len(states) - 1}, or -1"
                )
            chosen = states[place].float().cpu().numpy()
            for row, i in enumerate(group):
                found[i] = chosen[row, len(before) : len(before) + len(encoded[i])]
    return found
