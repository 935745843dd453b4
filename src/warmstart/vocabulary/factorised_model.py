"""Models whose vocabulary rows are factorised: fewer parameters to train, and the way back to dense rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.factorise import Factors, factorise
from warmstart.vocabulary.initialise import untie
from warmstart.vocabulary.surgery import as_rows, vocabulary_tensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

_NOTE = "factorised.json"


class FactorisedEmbedding(nn.Module):
    """`x = P' F[id]`: coordinates of the token, times primitives that all tokens share.

    Args:
        weight: F `(V, rank)`.
        primitives: P `(rank, d)`.
        padding_idx: Row without gradient, as in `nn.Embedding`.
    """

    def __init__(self, weight: nn.Parameter, primitives: nn.Parameter, padding_idx: int | None) -> None:
        super().__init__()
        self.weight, self.primitives, self.padding_idx = weight, primitives, padding_idx

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Rows `(…, d)` of ids `(…)`."""
        return nn.functional.embedding(ids, self.weight, self.padding_idx) @ self.primitives


class FactorisedHead(nn.Module):
    """`logits = F (P h) + b`; with the parameters of the embedding in a tied model.

    Args:
        weight: F `(V, rank)`.
        primitives: P `(rank, d)`.
        bias: b `(V,)` or None.
    """

    bias: nn.Parameter | None

    def __init__(self, weight: nn.Parameter, primitives: nn.Parameter, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.weight, self.primitives = weight, primitives
        self.register_parameter("bias", bias)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Logits `(…, V)` of states `(…, d)`."""
        return nn.functional.linear(nn.functional.linear(states, self.primitives), self.weight, self.bias)


def factorise_model(model: PreTrainedModel, rank: int) -> PreTrainedModel:
    """Give a loaded model factorised vocabulary rows, in place, as OFA (arXiv 2311.08849) does.

    Rows are split in a balanced way, see [`factorise`][warmstart.vocabulary.factorise.factorise]; an untied
    head is factorised by itself, a tied one shares both factors. With `rank` the width of the model the
    outputs are what they were, to rounding. V * d parameters become V * rank + rank * d. Initialise first,
    factorise then: mixing rows and mixing coordinates is the same.

    transformers has no such architecture: the model trains and generates here like any other, and is stored
    by [`save_factorised`][warmstart.vocabulary.factorised_model.save_factorised] or, for other programs,
    made dense by [`densify_model`][warmstart.vocabulary.factorised_model.densify_model] first.

    Raises:
        UserError: An impossible rank, an unknown architecture, or one that does more in its embedding than
            to look up rows (Gemma scales them there).
    """
    found = vocabulary_tensors(model)
    _install(model, lambda old: _parameters(factorise(as_rows(old), rank), old.dtype))
    del found
    return model


def densify_model(model: PreTrainedModel) -> PreTrainedModel:
    """Multiply the factors of a model, in place: an ordinary model again, with the same outputs."""
    dense: dict[int, nn.Parameter] = {}
    for parent, name, module in _factorised(model):
        key = id(module.weight)
        if key not in dense:
            dense[key] = nn.Parameter((module.weight @ module.primitives).detach())
        size, width = dense[key].shape
        fresh: nn.Module
        with torch.device("meta"):
            if isinstance(module, FactorisedEmbedding):
                fresh = nn.Embedding(size, width, module.padding_idx)
            else:
                fresh = nn.Linear(width, size, bias=False)
                fresh.register_parameter("bias", module.bias)
        fresh.weight = dense[key]
        setattr(parent, name, fresh)
    return model


def save_factorised(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write a factorised model: config, tokenizer, safetensors, and a note with its rank.

    The folder is opened by [`open_factorised`][warmstart.vocabulary.factorised_model.open_factorised] alone.

    Raises:
        UserError: A model without factors, or a folder that exists.
    """
    from safetensors.torch import save_file

    from warmstart.foundation.files import atomic_folder

    modules = _factorised(model)
    if not modules:
        raise UserError("the model has no factorised rows", fix="call factorise_model first")
    stored, seen = {}, set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:
            stored[name] = tensor.contiguous()
        seen.add(tensor.data_ptr())
    with atomic_folder(folder) as temporary:
        save_file(stored, temporary / "model.safetensors", metadata={"format": "pt"})
        model.config.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        heads = {id(module.weight) for _, _, module in modules if isinstance(module, FactorisedHead)}
        rows = {id(module.weight) for _, _, module in modules if isinstance(module, FactorisedEmbedding)}
        note = {"rank": int(modules[0][2].primitives.shape[0]), "tied": heads <= rows}
        (temporary / _NOTE).write_text(json.dumps(note) + "\n", encoding="utf-8")


def open_factorised(folder: Path) -> PreTrainedModel:
    """Open what `save_factorised` wrote, in evaluation mode and in the stored precision.

    Raises:
        UserError: Another kind of folder, or weights that do not fit its config.
    """
    from safetensors.torch import load_file
    from transformers import AutoConfig

    from warmstart.checkpoint.architecture import auto_class, task_of

    note = folder / _NOTE
    if not note.is_file():
        raise UserError("this is no factorised model", where=folder, fix="open it as an ordinary checkpoint")
    facts = json.loads(note.read_text(encoding="utf-8"))
    stored = load_file(folder / "model.safetensors")
    config = AutoConfig.from_pretrained(folder)
    task = task_of(config.to_dict(), where=folder)
    with torch.random.fork_rng(devices=[]):
        model: PreTrainedModel = auto_class(task).from_config(config)
        head: Any = model.get_output_embeddings()
        if not facts["tied"] and head is not None and head.weight is model.get_input_embeddings().weight:
            untie(model)
    _install(model, lambda old: _empty(old, facts["rank"]))
    nn.Module.to(model, dtype=next(iter(stored.values())).dtype)
    try:
        outcome: Any = model.load_state_dict(stored, strict=False)
    except RuntimeError as error:
        raise UserError("the weights do not fit the config", where=folder) from error
    loaded = {id(value) for name, value in model.named_parameters(remove_duplicate=False) if name in stored}
    lost = [name for name, value in model.named_parameters() if id(value) not in loaded]
    if lost or outcome.unexpected_keys:
        name = (lost or outcome.unexpected_keys)[0]
        raise UserError(f"the weights do not fit the config, first {name}", where=folder)
    return model.eval()


def _empty(old: torch.Tensor, rank: int) -> tuple[nn.Parameter, nn.Parameter]:
    return nn.Parameter(old.new_empty(len(old), rank)), nn.Parameter(old.new_empty(rank, old.shape[1]))


def _parameters(factors: Factors, dtype: torch.dtype) -> tuple[nn.Parameter, nn.Parameter]:
    left, right = torch.from_numpy(factors.coordinates), torch.from_numpy(factors.primitives)
    return nn.Parameter(left.to(dtype)), nn.Parameter(right.to(dtype))


def _install(
    model: PreTrainedModel, make: Callable[[torch.Tensor], tuple[nn.Parameter, nn.Parameter]]
) -> None:
    """Replace every module that holds input or head rows; what shared a matrix shares its factors."""
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
    made: dict[int, tuple[nn.Parameter, nn.Parameter]] = {}
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
        setattr(parent, name, fresh[id(module)])


def _factorised(model: nn.Module) -> list[tuple[nn.Module, str, Any]]:
    """Parent, name and module of every factorised place."""
    return [
        (parent, name, module)
        for parent in model.modules()
        for name, module in parent.named_children()
        if isinstance(module, FactorisedEmbedding | FactorisedHead)
    ]
