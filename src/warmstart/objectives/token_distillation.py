"""Token distillation: with the new token, the model is to think what it thinks after its old pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from warmstart.foundation.settings import Settings
from warmstart.objectives._base import BatchShape, objectives
from warmstart.objectives._parallel import recut
from warmstart.objectives._taught import Taught

if TYPE_CHECKING:
    from torch import Tensor, nn


class TokenDistillationSettings(Settings):
    """Options of token distillation."""

    target_layer: int = -1
    """Hidden state that is compared, as transformers numbers them: 0 is the embedding, -1 the last layer
    after the final norm. An early one (a quarter of the depth) suits short snippets."""
    positions: Literal["after-phrase", "all"] = "after-phrase"
    """Where it is compared: from the end of the first new token on (before it both read the same, so that
    the difference is zero and only thins the mean), or at `all` common places, as in the released code."""
    next_token_loss: Literal["none", "balanced"] = "none"
    """`balanced` adds the next-token loss of the new cut, scaled in every pass to the size of the
    distillation loss (the released code's option)."""


@objectives.register(
    "token-distillation",
    settings=TokenDistillationSettings,
    title="AweDist: Attention-aware Embedding Distillation for New Input Token Embeddings",
    arxiv="2505.20133",
    tags=("causal",),
    skips={
        "loss-is-that-of-transformers": "its loss is a distance between hidden states, not a likelihood",
        "gradient-reaches-every-layer": "a text that teacher and student cut alike has nothing to teach",
    },
)
class TokenDistillation(Taught):
    """Distils into the row of a new token what the model makes of its old pieces.

    The frozen teacher reads the old ids x, the student the new ids x'; for the places i of x' whose end is
    also an end in x, at place e(i),

        L = mean over i of (1/H) |h_student(x')_i - h_teacher(x)_e(i)|^2,

    h being the hidden states of one layer. Only rows of new tokens are meant to learn (`trainable:
    embeddings` and `rows`); gradients reach them through the frozen body. The student's positions are shorter
    than the teacher's by the pieces saved; relative encodings are left as they fall, as in the source.

    The head rows of an untied model do not appear in L. Where they learn, they are trained beside it by the
    next-token loss of the new cut, whose gradient goes to the head alone; the reported loss is L.

    The released code compares at all common places, also before the new token where the difference is zero
    (`positions: all`), and recognises padding by comparing ids, which fails where padding and end of text are
    one token; here padding is known by length. A batch without a new token has no targets and loss 0.
    """

    settings: TokenDistillationSettings

    def shape(self, tokens: int) -> BatchShape:
        """Both read all tokens; no logits are needed unless next tokens are predicted."""
        predicted = 0.0 if self.settings.next_token_loss == "none" else (tokens - 1) / tokens
        return BatchShape(tokens, predicted=predicted, teacher=tokens)

    def compared(self, ends: Tensor) -> Tensor:
        """Student places that are compared, (B, L) bool."""
        shared = ends > 0
        if self.settings.positions == "all":
            return shared
        return shared & (recut(ends).cumsum(1) > 0)

    def loss(
        self, model: nn.Module, batch: dict[str, Tensor], companions: nn.Module | None = None
    ) -> tuple[Tensor, Tensor]:
        """Sum over compared places of the mean squared difference, and their number."""
        import torch

        from warmstart.objectives._hidden import hidden_states

        layer = self.settings.target_layer
        with torch.no_grad():
            (theirs,) = hidden_states(self.teacher(model), batch["teacher_ids"], [layer])
        ours, last = hidden_states(model, batch["input_ids"], [layer, -1])
        row, place = self.compared(batch["ends"]).nonzero(as_tuple=True)
        difference = ours[row, place] - theirs[row, batch["ends"][row, place] - 1].to(ours)
        if difference.dtype != torch.float64:
            difference = difference.float()
        total = difference.square().mean(-1).sum()
        return total + self._next_tokens(model, last, batch, total), total.new_tensor(float(len(row)))

    def _next_tokens(
        self, model: nn.Module, last: Tensor, batch: dict[str, Tensor], distance: Tensor
    ) -> Tensor:
        """What is added for next tokens: the balanced loss, or a gradient for an untied head alone."""
        from warmstart.evaluation.head import unwrap
        from warmstart.objectives._hidden import next_token_nll, plain_head

        inner = unwrap(model)
        output, rows = inner.get_output_embeddings(), inner.get_input_embeddings()
        balanced = self.settings.next_token_loss == "balanced"
        untied = output is not None and output.weight is not rows.weight and output.weight.requires_grad
        if not (balanced or untied):
            return distance.new_zeros(())
        head = plain_head(model, batch["input_ids"])
        targets = self.targets(batch["labels"])
        nll, _ = next_token_nll(head, last if balanced else last.detach(), targets)
        if not balanced:
            return (nll - nll.detach()).to(distance)
        return (distance / nll.clamp(min=1e-9)).detach().to(distance) * nll.to(distance)
