"""Multi-token prediction: next to the next token, a second head predicts the one after it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from pydantic import Field

from warmstart.foundation.settings import Settings
from warmstart.objectives._base import BatchShape, objectives
from warmstart.objectives.causal import Causal

if TYPE_CHECKING:
    from torch import Tensor, nn


class MultiTokenSettings(Settings):
    """Options of multi-token prediction."""

    second_weight: float = Field(default=1.0, ge=0)
    """Weight of the loss of the token after the next one."""


@objectives.register(
    "multi-token",
    settings=MultiTokenSettings,
    title="How Can We Effectively Expand the Vocabulary of LLMs with 0.01GB of Target Language Text?",
    arxiv="2406.11477",
    tags=("causal",),
)
class MultiToken(Causal):
    """Next-token prediction with a second head for the token after the next one.

    `L = mean_i -log p(x_{i+1} | …) + w mean_i -log p_2(x_{i+2} | …)`, both from the same last hidden state.
    The second head begins as a copy of the language-model head (untied from it, so it costs V x H parameters
    and as many moments), learns beside the model, and is dropped on save: the checkpoint is the plain model.

    The idea is that of Gloeckle et al. (arXiv 2404.19737), who give each head a transformer layer of its own;
    here, as in the recipe for small data, it is the matrix alone. Its released script names a class that its
    repository does not hold; the losses are summed as its paper says. The reported loss is the sum.
    """

    settings: MultiTokenSettings

    def shape(self, tokens: int) -> BatchShape:
        """The head is computed twice."""
        return BatchShape(tokens, predicted=(2 * tokens - 3) / tokens)

    def companions(self, model: nn.Module) -> nn.Module:
        """The second head: a copy of the model's own."""
        return copied_head(model)

    def loss(
        self, model: nn.Module, batch: dict[str, Tensor], companions: nn.Module | None = None
    ) -> tuple[Tensor, Tensor]:
        """Both losses, scaled so that the sum over N next tokens is N times the sum of the means."""
        if companions is None:
            return super().loss(model, batch)
        from warmstart.objectives._hidden import hidden_states, next_token_nll, plain_head

        head = plain_head(model, batch["input_ids"])
        (hidden,) = hidden_states(model, batch["input_ids"], dropout=True)
        nll, number = next_token_nll(head, hidden, self.targets(batch["labels"]))
        later, fewer = next_token_nll(head, hidden, after_next(batch["labels"]), companions)  # type: ignore[arg-type]
        total = nll + self.settings.second_weight * later * (number / max(fewer, 1))
        return total, nll.new_tensor(float(number))


def copied_head(model: nn.Module) -> nn.Module:
    """A linear layer that begins as the model's output layer, with weights of its own."""
    import torch

    from warmstart.evaluation.head import unwrap

    layer = unwrap(model).get_output_embeddings()
    if hasattr(layer, "primitives"):  # factorised rows
        return copy.deepcopy(layer)
    made = torch.nn.Linear(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        device=layer.weight.device,
        dtype=layer.weight.dtype,
    )
    made.load_state_dict(layer.state_dict())
    return made


def after_next(labels: Tensor) -> Tensor:
    """Labels shifted left by two; the last two positions predict nothing."""
    from torch.nn import functional as F

    return F.pad(labels[:, 2:], (0, 2), value=-100)
