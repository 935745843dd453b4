"""The source model with rows of another vocabulary: what a hypernetwork's rows are asked by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from warmstart.evaluation.head import token_losses
from warmstart.foundation.errors import UserError
from warmstart.vocabulary.surgery import vocabulary_tensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel

UNUSED = -1e9
"""Head bias of an id that no token has: it takes no probability."""


class Layout(NamedTuple):
    """Where the rows of a vocabulary stand in the table that the model sees.

    Attributes:
        special: `(s,)` ids of the copied special tokens.
        tokens: `(n,)` ids of the predicted tokens.
        hole: An id that no token may have, or None.
        size: Rows in all.
    """

    special: np.ndarray
    tokens: np.ndarray
    hole: int | None
    size: int


class FrozenSource:
    """A language model without trainable weights whose vocabulary is handed in with each batch.

    Families such as RoBERTa count positions from the padding id, and embeddings give it no gradient: no token
    of a handed-in vocabulary gets that id, and its logit is masked.

    Args:
        model: Causal or masked; this object takes it over (no gradients, evaluation mode).
        special: Source ids of the special tokens that every vocabulary has.
        used: Source ids that a token uses; their mean head bias is that of predicted tokens.
    """

    def __init__(self, model: PreTrainedModel, special: Sequence[int], used: np.ndarray) -> None:
        self.special = list(special)
        self._asked = _Asked(model.eval().requires_grad_(False))
        found = vocabulary_tensors(model)
        head: Any = model.get_output_embeddings()
        if not found.biases:
            if not isinstance(head, nn.Linear):
                raise UserError(
                    f"the output layer of {type(model).__name__} is no plain matrix",
                    where="hypernetwork",
                    fix="use a causal or masked language model without adapters",
                )
            head.bias = nn.Parameter(head.weight.new_zeros(head.weight.shape[0]), requires_grad=False)
            biases = [head.bias]
        else:
            biases = list(found.biases)
        embedding: Any = model.get_input_embeddings()
        embedding.padding_idx = None  # it may lie behind the last row of a smaller vocabulary
        self.pad: int | None = model.config.pad_token_id
        matrices = [found.rows] if found.head is None else [found.rows, found.head]
        self.sources: list[Tensor] = [matrix.detach() for matrix in matrices]
        self._names = [self._names_of(parameter) for parameter in matrices]
        self._bias_names = [self._names_of(parameter) for parameter in biases]
        self._biases = [bias.detach() for bias in biases]
        where = torch.from_numpy(used)
        self._means = [bias[where].mean() for bias in self._biases]

    def _names_of(self, parameter: nn.Parameter) -> list[str]:
        named = self._asked.named_parameters(remove_duplicate=False)
        return [name for name, other in named if other is parameter]

    def layout(self, tokens: int) -> Layout:
        """Places of the special tokens, then of so many predicted ones, around the padding id."""
        total = len(self.special) + tokens
        ids = np.arange(total)
        hole = self.pad if self.pad is not None and 0 <= self.pad <= total else None
        if hole is not None:
            ids[ids >= hole] += 1
        return Layout(ids[: len(self.special)], ids[len(self.special) :], hole, total + (hole is not None))

    def tables(self, layout: Layout, rows: Sequence[Tensor]) -> dict[str, Tensor]:
        """Parameters by name: the predicted rows `(n, d)` of each matrix among the copied ones."""
        tables: dict[str, Tensor] = {}
        special = torch.tensor(self.special, dtype=torch.int64)
        for names, source, predicted in zip(self._names, self.sources, rows, strict=True):
            whole = torch.cat([source[special], predicted])
            if layout.hole is not None:
                whole = torch.cat([whole[: layout.hole], source[layout.hole][None], whole[layout.hole :]])
            tables |= dict.fromkeys(names, whole)
        for names, source, mean in zip(self._bias_names, self._biases, self._means, strict=True):
            bias = torch.full((layout.size,), UNUSED, dtype=source.dtype)
            bias[torch.from_numpy(layout.special)] = source[special]
            bias[torch.from_numpy(layout.tokens)] = mean
            tables |= dict.fromkeys(names, bias)
        return tables

    def loss(
        self, layout: Layout, rows: Sequence[Tensor], inputs: dict[str, Tensor], targets: Tensor
    ) -> Tensor:
        """Summed negative log-likelihood in nats, differentiable in the predicted rows."""
        total, _ = functional_call(self._asked, self.tables(layout, rows), (inputs, targets))
        return total

    def logits(self, layout: Layout, rows: Sequence[Tensor], inputs: dict[str, Tensor]) -> Tensor:
        """The model's own logits `(B, L, size)`."""
        found: Tensor = functional_call(self._asked, self.tables(layout, rows), (inputs, None))
        return found


class _Asked(nn.Module):
    """Model and loss in one `forward`, through which parameters can be handed in."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: dict[str, Tensor], targets: Tensor | None) -> Any:
        if targets is None:
            return self.model(**inputs).logits
        return token_losses(self.model, inputs, targets)
