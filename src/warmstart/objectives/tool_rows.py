"""Tools as output rows: a frozen model learns when to call a tool, held near a prior made of its name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings, digest
from warmstart.objectives._base import objectives
from warmstart.objectives.causal import Causal

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class ToolRowsSettings(Settings):
    """Options of tools as output rows."""

    penalty: float = Field(default=0.01, ge=0)
    """Weight of the distance of all tool rows from their prior."""
    only_tools: bool = True
    """Predict tool calls only, as the released code does. Then nothing but the rows' lengths keeps a tool
    from being called where none belongs; false predicts the rest of the text as well."""


@objectives.register(
    "tool-rows",
    settings=ToolRowsSettings,
    title="Re-Initialization Token Learning for Tool-Augmented Large Language Models",
    arxiv="2506.14248",
    tags=("causal",),
)
class ToolRows(Causal):
    """Next-token prediction over `[U h ; W h]`, where each row of W is a tool and only W learns.

    `L = mean of -log p(tool | text before the call) + 0.01 |W - P|_2`, the norm being that of the whole
    matrix, not squared. The tools are head rows of a model whose vocabulary was extended by one token each;
    train them with `rows` = their ids and `trainable: embeddings`. Tools are never read: in the input stands
    the text of the call, whose first token has the tool as its label and whose other tokens have none (see
    [`mark_calls`][warmstart.objectives.tool_rows.mark_calls]).

    The model below the head is read without dropout and without a gradient: nothing of it learns, and since
    tools are never read, their rows of a tied matrix get the same gradient as they would with one.

    P is by default the rows with which training begins, which are meant to be
    [`tool_prior`][warmstart.objectives.tool_rows.tool_prior]. The gradient of the norm at W = P is taken as
    zero. At use, the paper adds a constant between 2.7 and 10 to the tools' logits, tuned for each task; a
    comparison must give the same sweep to every method.

    Args:
        settings: Options of the objective.
        tokenizer: Of the model.
        tools: Ids of the tools, (K,).
        prior: P, (K, H); the head rows at the start by default.
    """

    settings: ToolRowsSettings
    parts = ("tools", "prior")

    def __init__(
        self,
        settings: Any,
        tokenizer: PreTrainedTokenizerBase,
        *,
        tools: Iterable[int] | None = None,
        prior: Tensor | None = None,
    ) -> None:
        super().__init__(settings, tokenizer)
        self.tools = np.array(sorted(tools) if tools is not None else [], dtype=np.int64)
        self.prior = prior
        if prior is not None and len(prior) != len(self.tools):
            raise UserError(f"the prior has {len(prior)} rows for {len(self.tools)} tools")
        held = None if prior is None else prior.double().tolist()
        self.fingerprint = digest([self.tools.tolist(), held]) if len(self.tools) else None

    def prepare(self, model: nn.Module, device: torch.device) -> None:
        """Remember the rows with which training begins, unless a prior was given."""
        if len(self.tools):
            rows = self._rows(model).detach().clone() if self.prior is None else self.prior
            self.prior = rows.to(device)

    def _rows(self, model: nn.Module) -> Tensor:
        import torch

        from warmstart.evaluation.head import unwrap

        weight = unwrap(model).get_output_embeddings().weight
        whole: Tensor = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
        return whole[torch.from_numpy(self.tools).to(whole.device)]

    def collate(self, blocks: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
        """`input_ids` and `labels` (B, L) of blocks (B, 2, L): ids and labels, -1 for none and for padding.

        A plain block (B, L) is a text without calls.
        """
        import torch

        ids, labels = (blocks[:, 0], blocks[:, 1]) if blocks.ndim == 3 else (blocks, blocks)
        labels = np.where(labels < 0, -100, labels).astype(np.int64)
        if self.settings.only_tools and len(self.tools):
            labels = np.where(np.isin(labels, self.tools), labels, -100)
        inputs = np.maximum(ids, 0).astype(np.int64)
        width = max(1, int((ids >= 0).any(axis=0).sum()))  # padding at the end of all texts is not computed
        found = {"input_ids": inputs, "labels": labels}
        return {k: torch.from_numpy(np.ascontiguousarray(v[:, :width])) for k, v in found.items()}

    def loss(
        self, model: nn.Module, batch: dict[str, Tensor], companions: nn.Module | None = None
    ) -> tuple[Tensor, Tensor]:
        """Summed loss of the labels plus N times the penalty, and N, the number of labels."""
        import torch

        total, count = self._read(model, batch) if len(self.tools) else super().loss(model, batch, companions)
        if self.prior is None or not self.settings.penalty:
            return total, count
        distance = torch.linalg.vector_norm(self._rows(model) - self.prior)
        return total + self.settings.penalty * count * distance.to(total), count

    def _read(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The loss as a function of the head alone."""
        import torch

        from warmstart.evaluation.head import head_of
        from warmstart.objectives._hidden import hidden_states, next_token_nll

        ids = batch["input_ids"]
        head = head_of(model, {"input_ids": ids[:, : min(2, ids.shape[1])]})
        if head.linear is None:  # the model's own code makes the logits
            return super().loss(model, batch)
        with torch.no_grad():
            (hidden,) = hidden_states(model, ids)
        total, number = next_token_nll(head, hidden, self.targets(batch["labels"]))
        return total, total.new_tensor(float(number))


def mark_calls(ids: Sequence[int], calls: Iterable[tuple[int, int, int]]) -> np.ndarray:
    """A block (2, L) for [`ToolRows`][warmstart.objectives.tool_rows.ToolRows].

    Args:
        ids: The text, in which each call is written out.
        calls: First place, place behind the last, and tool id of each call; -1 as the id leaves a call out:
            its text is read, and nothing is predicted there.

    Raises:
        UserError: Calls overlap or lie outside of the text.
    """
    labels, end = np.array(ids, dtype=np.int64), 0
    for start, stop, tool in sorted(calls):
        if not end <= start < stop <= len(labels):
            raise UserError(f"a call at {start}–{stop} overlaps another or the end of the text")
        labels[start:stop] = -1
        labels[start], end = tool, stop
    return np.stack([np.array(ids, dtype=np.int64), labels])


def tool_prior(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    bos: bool = False,
    space: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Prior rows (K, H) of tools from their names or descriptions.

    Brackets around a name are dropped; the frozen model reads the text without special tokens, its last
    hidden states after the final norm are averaged over places, and the mean is brought to length
    `1 / sqrt(H)`. These states live in the space of head rows; the input matrix does not, though the paper's
    abstract can be read so.

    Args:
        model: Causal language model.
        tokenizer: Its tokenizer.
        texts: One per tool.
        bos: Read the beginning-of-text token first and leave out its state. Without it, as in the released
            code, the first place of the name is the atypical one (all later places attend to it).
        space: Put a space before the text, as words have one in running text: byte-level tokenizers cut a
            name without it as the rest of a longer word.
        scale: Divisor of the unit vectors, `sqrt(H)` by default; the released code has `sqrt(5120)` for
            models of all sizes.

    Raises:
        UserError: A text is empty, or there is no beginning-of-text token to read.
    """
    import torch

    from warmstart.objectives._hidden import hidden_states

    ids = [name_ids(tokenizer, text, space=space) for text in texts]
    head = []
    if bos:
        if tokenizer.bos_token_id is None:
            raise UserError("the tokenizer has no beginning-of-text token", fix="set bos: false")
        head = [int(tokenizer.bos_token_id)]
    found = []
    with torch.no_grad():
        for row in ids:
            (states,) = hidden_states(model, torch.tensor([head + list(row)], device=model.device))
            mean = states[0, len(head) :].mean(0)
            found.append(mean / mean.norm())
    rows = torch.stack(found)
    return rows / (math.sqrt(rows.shape[1]) if scale is None else scale)


def name_ids(tokenizer: PreTrainedTokenizerBase, text: str, *, space: bool = False) -> list[int]:
    """Tokens of a tool's name or description without brackets around it and without special tokens.

    Raises:
        UserError: Nothing is left.
    """
    plain = text.strip().strip("<>[](){}").strip()
    ids = tokenizer(f" {plain}" if space and plain else plain, add_special_tokens=False)["input_ids"]
    if not ids:
        raise UserError(f"the tool text {text!r} is empty", where="tools", fix="give each tool a name")
    return list(ids)
