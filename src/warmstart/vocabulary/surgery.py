"""Putting new vocabulary rows into a loaded model, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.tokens import special_roles

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from warmstart.vocabulary.computed import Which

_FORGOTTEN = (
    "suppress_tokens",
    "begin_suppress_tokens",
    "bad_words_ids",
    "forced_decoder_ids",
    "sequence_bias",
)
"""Generation settings that name single old ids; they mean nothing in a new vocabulary."""


@dataclass
class VocabularyTensors:
    """The parameters of a model that have a vocabulary axis.

    Attributes:
        rows: Input rows `(V, d)`.
        head: Head rows `(V, d)`; None when they are the input rows, or there is no head.
        biases: Head biases `(V,)`; several only in models that keep two untied ones.
    """

    rows: torch.nn.Parameter
    head: torch.nn.Parameter | None
    biases: list[torch.nn.Parameter]


def vocabulary_tensors(model: PreTrainedModel) -> VocabularyTensors:
    """Find the vocabulary's parameters by the family table, also in an encoder without a head.

    Raises:
        UserError: For an architecture without a table.
    """
    from warmstart.anatomy import anatomy_of_model

    anatomy = anatomy_of_model(model)
    sites = anatomy.vocabulary
    stored = dict(model.named_parameters(remove_duplicate=False))
    # a bare body calls its parameters by shorter names
    named = {spec.name: stored[name] for name, spec in anatomy.recognise(stored).items()} | stored
    rows = next(named[name] for name in sites.input_rows if name in named)
    head = named[sites.head_rows] if sites.head_rows and model.get_output_embeddings() is not None else None
    biases = {id(named[name]): named[name] for name in sites.head_bias if name in named}
    return VocabularyTensors(rows, None if head is rows else head, list(biases.values()))


def as_rows(parameter: torch.Tensor) -> np.ndarray:
    """A parameter as NumPy: float64 stays, everything else becomes float32 (a view where it is already)."""
    import torch

    tensor = parameter.detach()
    return (tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()).numpy()


def swap(model: PreTrainedModel, old: torch.nn.Parameter, new: np.ndarray) -> None:
    """Replace a parameter in every module that holds it, so that ties stay ties.

    Sizes that modules remember (`num_embeddings`, `out_features`) follow.
    """
    import torch

    fresh = torch.nn.Parameter(torch.from_numpy(new).to(old.dtype), requires_grad=old.requires_grad)
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is old:
                module._parameters[name] = fresh
        if isinstance(module, torch.nn.Embedding) and module.weight is fresh:
            module.num_embeddings = fresh.shape[0]
        if isinstance(module, torch.nn.Linear) and module.weight is fresh:
            module.out_features = fresh.shape[0]


def replace_vocabulary(
    model: PreTrainedModel,
    fill: Callable[[np.ndarray, Which], np.ndarray],
    fill_bias: Callable[[np.ndarray], np.ndarray],
) -> None:
    """Give the model new vocabulary parameters; all others stay the same objects.

    Args:
        model: Changed in place; `config.vocab_size` follows.
        fill: `(source rows (V_source, d), "input" | "head") -> (V_target, d)`.
        fill_bias: `(V_source,) -> (V_target,)`.
    """
    found = vocabulary_tensors(model)
    rows = fill(as_rows(found.rows), "input")
    head = fill(as_rows(found.head), "head") if found.head is not None else None
    biases = [(bias, fill_bias(as_rows(bias))) for bias in found.biases]
    swap(model, found.rows, rows)
    if found.head is not None and head is not None:
        swap(model, found.head, head)
    for old, new in biases:
        swap(model, old, new)
    model.config.vocab_size = rows.shape[0]


def translate_ids(
    model: PreTrainedModel, source: PreTrainedTokenizerFast, target: PreTrainedTokenizerFast
) -> None:
    """Make the id fields of config and generation_config mean the target's tokens, by role.

    `bos`, `eos`, `pad` (and `cls`, `sep`, `mask`, `unk`) become the target's. Other fields, such as
    `decoder_start_token_id`, follow the role that their old token had in the source.
    Lists of single old ids (`suppress_tokens`, …) are dropped.
    """
    roles = special_roles(source)

    def translate(value: Any) -> Any:
        if isinstance(value, list):
            found = [new for old in value if (new := translate(old)) is not None]
            return list(dict.fromkeys(found)) or None
        ids = (getattr(target, f"{role}_token_id", None) for role in roles.get(value, ()))
        return next((index for index in ids if index is not None), None)

    for table in (model.config, getattr(model, "generation_config", None)):
        if table is None:
            continue
        for key in [key for key in table.to_dict() if key.endswith("_token_id")]:
            value, role = getattr(table, key, None), key.removesuffix("_token_id")
            own = getattr(target, key, None)
            if role == "eos" and isinstance(value, list):
                others = [index for index in translate(value) or [] if index != own]
                setattr(table, key, [own, *others] if own is not None else others or None)
            elif role in ("bos", "eos", "pad", "cls", "sep", "mask", "unk"):
                setattr(table, key, own)
            elif value is not None:
                setattr(table, key, translate(value))
        for key in _FORGOTTEN:
            if getattr(table, key, None) is not None:
                setattr(table, key, None)


def move_padding(model: PreTrainedModel) -> None:
    """Point the embedding's `padding_idx`, where it has one, at the new padding id."""
    import torch

    rows = model.get_input_embeddings().weight
    for module in model.modules():
        if (
            isinstance(module, torch.nn.Embedding)
            and module.weight is rows
            and module.padding_idx is not None
        ):
            module.padding_idx = model.config.pad_token_id


def shift_positions(model: PreTrainedModel, old_pad: int | None, new_pad: int | None, where: object) -> None:
    """Keep position embeddings in place where positions are counted from the padding id (RoBERTa).

    There position `i` of a text reads row `pad + 1 + i`. With another padding id the table is moved, so that
    the same text reads the same vectors; it grows by `new_pad - old_pad` rows.
    """
    import torch

    from warmstart.checkpoint.ids import positions_from_padding

    if not positions_from_padding(model) or old_pad == new_pad or old_pad is None:
        return
    if new_pad is None:
        raise UserError(
            f"{model.config.model_type} counts positions from the padding token and the tokenizer has none",
            where=where,
            fix="add a pad token to the tokenizer",
        )
    module: Any
    for module in model.modules():
        table = getattr(module, "position_embeddings", None)
        if not isinstance(getattr(module, "padding_idx", None), int) or table is None:
            continue
        old = table.weight
        count = old.shape[0] - old_pad + new_pad
        fresh = old.detach()[old_pad].repeat(count, 1)
        fresh[new_pad + 1 :] = old.detach()[old_pad + 1 :]
        table.weight = torch.nn.Parameter(fresh.clone())
        table.num_embeddings, table.padding_idx, module.padding_idx = count, new_pad, new_pad
        if getattr(module, "position_ids", None) is not None:
            module.position_ids = torch.arange(count).expand((1, -1))
        if getattr(module, "token_type_ids", None) is not None:
            module.token_type_ids = torch.zeros((1, count), dtype=torch.long)
        model.config.max_position_embeddings = count
