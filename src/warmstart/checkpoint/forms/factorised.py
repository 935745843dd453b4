"""Factorised vocabulary rows: `E = F P`, coordinates per token times primitives that all tokens share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from warmstart.checkpoint.forms import forms
from warmstart.foundation.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class FactorisedEmbedding(nn.Embedding):
    """`x = P' F[id]`: coordinates of the token, times the primitives.

    An `nn.Embedding` of width d, whose `weight` is F.

    Args:
        weight: F `(V, rank)`.
        primitives: P `(rank, d)`.
        padding_idx: Row without gradient, as in `nn.Embedding`.
    """

    def __init__(self, weight: nn.Parameter, primitives: nn.Parameter, padding_idx: int | None) -> None:
        super().__init__(weight.shape[0], weight.shape[1], padding_idx, device="meta")
        self.embedding_dim = primitives.shape[1]
        self.weight, self.primitives = weight, primitives

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Rows `(…, d)` of ids `(…)`."""
        return nn.functional.embedding(ids, self.weight, self.padding_idx) @ self.primitives


class FactorisedHead(nn.Linear):
    """`logits = F (P h) + b`; with the parameters of the embedding in a tied model.

    An `nn.Linear` with the weight F and nothing unusual in its `forward`: states pass through P before they
    enter it. So whoever reads a head's rows in place of calling it, such as the chunked loss, is right too.

    Args:
        weight: F `(V, rank)`.
        primitives: P `(rank, d)`.
        bias: b `(V,)` or None.
    """

    bias: nn.Parameter | None  # type: ignore[assignment]

    def __init__(self, weight: nn.Parameter, primitives: nn.Parameter, bias: nn.Parameter | None) -> None:
        super().__init__(weight.shape[1], weight.shape[0], bias=False, device="meta")
        self.weight, self.primitives = weight, primitives
        self.register_parameter("bias", bias)
        self.register_forward_pre_hook(_project)


def _project(head: nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
    """States `(…, d)` to `(…, rank)`."""
    return nn.functional.linear(inputs[0], head.primitives)  # type: ignore[arg-type]


Parts = tuple[nn.Parameter, nn.Parameter]
"""F `(V, rank)` and P `(rank, d)`."""


def install(model: PreTrainedModel, make: Callable[[torch.Tensor], Parts]) -> None:
    """Replace every module that holds input or head rows, in place; what shared a matrix shares its factors.

    Args:
        model: A model as its class of transformers makes it.
        make: Rows `(V, d)` to their factors.

    Raises:
        UserError: A module that does more than to look up rows or to multiply by them.
    """
    head: Any = model.get_output_embeddings()
    rows: Any = model.get_input_embeddings().weight
    wanted = {id(rows)} | ({id(head.weight)} if head is not None else set())
    places = []
    for parent in model.modules():
        for name, module in parent.named_children():
            if id(getattr(module, "weight", None)) in wanted:
                if type(module) not in (nn.Embedding, nn.Linear):
                    raise UserError(
                        f"a {type(module).__name__} does more than to look up rows and cannot be factorised"
                    )
                places.append((parent, name, module))
    made: dict[int, Parts] = {}
    fresh: dict[int, nn.Module] = {}
    for parent, name, module in places:
        old: Any = module.weight
        if id(old) not in made:
            made[id(old)] = make(old.detach())
        if id(module) not in fresh:
            if isinstance(module, nn.Embedding):
                fresh[id(module)] = FactorisedEmbedding(*made[id(old)], module.padding_idx)
            else:
                fresh[id(module)] = FactorisedHead(*made[id(old)], module.bias)  # type: ignore[arg-type]
            fresh[id(module)].train(module.training)
        setattr(parent, name, fresh[id(module)])


def places(model: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
    """Parent, name and module of every factorised place."""
    for parent in model.modules():
        for name, module in parent.named_children():
            if isinstance(module, FactorisedEmbedding | FactorisedHead):
                yield parent, name, module


def separate(model: PreTrainedModel) -> None:
    """Give a head that shares the input rows a matrix of its own, where the configuration cannot say so.

    The configuration class of T5 always says tied; v1.1 is untied only when it reads a second matrix.
    """
    head: Any = model.get_output_embeddings()
    rows: Any = model.get_input_embeddings()
    if head is not None and head.weight is rows.weight:
        head.weight = nn.Parameter(torch.empty_like(head.weight))
        tied = getattr(model, "all_tied_weights_keys", {})
        for key in [key for key in tied if key.startswith("lm_head.")]:
            tied.pop(key)


class Factorised:
    """Models with factorised vocabulary rows, as OFA (arXiv 2311.08849) has them.

    The note holds `rank`, and `tied`: whether the head's coordinates are those of the input.
    """

    def describe(self, model: PreTrainedModel) -> dict[str, Any] | None:
        """Rank and tying of a factorised model."""
        modules = [module for _, _, module in places(model)]
        if not modules:
            return None
        heads = {id(module.weight) for module in modules if isinstance(module, FactorisedHead)}
        rows = {id(module.weight) for module in modules if isinstance(module, FactorisedEmbedding)}
        return {"rank": int(modules[0].primitives.shape[0]), "tied": heads <= rows}

    def prepare(self, model: PreTrainedModel, note: Mapping[str, Any]) -> None:
        """Replace the rows by factors whose values are open."""
        if not note["tied"]:
            separate(model)
        rank = int(note["rank"])

        def empty(old: torch.Tensor) -> Parts:
            return nn.Parameter(old.new_empty(len(old), rank)), nn.Parameter(
                old.new_empty(rank, old.shape[1])
            )

        install(model, empty)

    def plain_shapes(self, model: PreTrainedModel) -> dict[str, tuple[int, ...]]:
        """The state's shapes with dense rows."""
        shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        for name, module in model.named_modules(remove_duplicate=False):
            if isinstance(module, FactorisedEmbedding | FactorisedHead):
                shapes.pop(f"{name}.primitives")
                shapes[f"{name}.weight"] = (len(module.weight), module.primitives.shape[1])
        return shapes


forms.register(
    "factorised",
    title="OFA: A Framework of Initializing Unseen Subword Embeddings for Efficient Large-scale Multilingual "
    "Continued Pretraining",
    arxiv="2311.08849",
)(Factorised())
