"""What the weights that read a cut axis are multiplied by, so that what they write keeps its spread."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from warmstart.foundation.errors import UserError
from warmstart.shape.calibration import Calibration, Hook, wide
from warmstart.shape.consumers import Consumer, as_consumer, places
from warmstart.shape.reshape import Read, Reshape

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


class _Place(NamedTuple):
    """A weight of the new model that reads a cut axis, and the old one that it comes from."""

    name: str
    """Canonical name in the new model."""
    now: Consumer
    before: Consumer
    outputs: np.ndarray
    """Outputs of the old module that the new one has."""


def calibrated_factors(
    reshape: Reshape, calibration: Calibration, read: Read, names: Collection[str] | None = None
) -> dict[str, dict[int | None, float]]:
    """The factors of a surgery, with those under which linear modules write with the spread of the old ones.

    For each module that reads a cut axis, `std before / std after`: the root of the variance over all
    positions, averaged over the outputs that both have. The cut model is mended while it reads, module by
    module, so each is measured on what the mended ones before it write; over several batches it is the
    geometric mean. Before a tied head it is the last norm that is multiplied. Logits are not computed: their
    variance is that of the hidden states seen through `W^T W`.

    Args:
        reshape: The surgery, whose own shares and factors are where the search starts.
        calibration: The old model and its text.
        read: Gives old tensors by canonical name.
        names: Canonical names of what is stored; all where not given.

    Raises:
        UserError: Experts, and models that transformers holds otherwise than it stores them.
    """
    if reshape.new.table.two_layouts:
        raise UserError(
            f"a {reshape.new.model_type} cannot be rescaled by calibration", fix="take rescale: sqrt"
        )
    model = cut_model(reshape, calibration.model, read, names)
    found = [p for p in _places(reshape, calibration, model) if _is_stored(reshape, p.name, names)]
    heads = [_Head.of(reshape, reader) for reader in (calibration.model, model)]
    logs: dict[str, list[float]] = defaultdict(list)
    for batch in calibration.batches:
        one, goals = replace(calibration, batches=[batch]), dict[str, float]()
        one.read([*(_measure(place, goals) for place in found), *_watch(heads[0], goals)])
        factors: dict[str, float] = {}
        one.read(
            [*(_mend(place, model, goals, factors) for place in found), *_watch(heads[1], factors)],
            model=model,
        )
        if heads[0] and heads[1]:
            spread = factors.pop(heads[1].module)
            for name in _head_names(reshape):
                factors[name] = _ratio(goals[heads[0].module], spread)
        for name, factor in factors.items():
            logs[name].append(math.log(factor))
    merged = {name: dict(chosen) for name, chosen in reshape.factors.items()}
    for name, values in logs.items():
        known = merged.setdefault(name, {})
        known[None] = known.get(None, 1.0) * math.exp(sum(values) / len(values))
    return merged


def cut_model(
    reshape: Reshape, model: PreTrainedModel, read: Read, names: Collection[str] | None = None
) -> PreTrainedModel:
    """The model that a surgery makes, in memory, of the class of the old one.

    Args:
        reshape: The surgery.
        model: The old model.
        read: Gives old tensors by canonical name.
        names: Canonical names of what is stored; all where not given. What is not, the head of a bare
            encoder, is drawn anew.
    """
    import torch

    known = reshape.old.config
    changed = {key: value for key, value in reshape.new.config.items() if known.get(key) != value}
    config = type(model.config)(**{**model.config.to_dict(), **changed})
    config._attn_implementation = model.config._attn_implementation
    with torch.random.fork_rng(devices=[]):
        fresh: Any = type(model)(config)
    fresh = fresh.to(model.dtype).eval()
    head, rows = fresh.get_output_embeddings(), fresh.get_input_embeddings()
    if not reshape.new.tied and head is not None and head.weight is rows.weight:  # T5 builds tied ones only
        head.weight = torch.nn.Parameter(torch.empty_like(head.weight))
    own = fresh.state_dict()
    made = [name for name, spec in reshape.new.tensors.items() if name in own and spec.tied_to is None]
    kept = {name: reshape.tensor(name, read) for name in made if _is_stored(reshape, name, names)}
    fresh.load_state_dict(kept, strict=False)
    moved: PreTrainedModel = fresh.to(model.device)
    return moved


def _is_stored(reshape: Reshape, name: str, names: Collection[str] | None) -> bool:
    return names is None or reshape.origin(reshape.new.tensors[name]).name in names


def _places(reshape: Reshape, calibration: Calibration, model: PreTrainedModel) -> list[_Place]:
    found = []
    vocabulary = reshape.new.table.vocabulary
    heads = [vocabulary.head_rows] if vocabulary else []
    for name, spec in reshape.new.tensors.items():
        now = as_consumer(spec, model)
        before = as_consumer(reshape.origin(spec), calibration.model)
        if now is None or before is None or name in heads or name in reshape.made:
            continue
        if now.reads.size < before.reads.size:
            outputs = places(now.writes, before.writes, reshape.maps)
            found.append(_Place(name, now, before, outputs))
    return found


def _measure(place: _Place, goals: dict[str, float]) -> tuple[str, Hook]:
    """A hook that notes the spread of the old outputs that the new module has."""

    def hook(given: Tensor, made: Tensor) -> None:
        import torch

        goals[place.name] = _spread(made.index_select(-1, torch.from_numpy(place.outputs).to(made.device)))

    return place.before.module, hook


def _mend(
    place: _Place, model: PreTrainedModel, goals: dict[str, float], factors: dict[str, float]
) -> tuple[str, Hook]:
    """A hook that lets a module write as if its weight had been multiplied, and notes the factor."""
    bias = getattr(model.get_submodule(place.now.module), "bias", None)

    def hook(given: Tensor, made: Tensor) -> Tensor:
        factor = factors[place.name] = _ratio(goals[place.name], _spread(made))
        return made * factor if bias is None else made * factor + (1 - factor) * bias.detach().to(made)

    return place.now.module, hook


def _spread(values: Tensor) -> float:
    """Root of the mean over the last dimension of the variances over all others."""
    return math.sqrt(float(wide(values).flatten(0, -2).var(0, correction=0).mean()))


class _Head(NamedTuple):
    """An output matrix that reads a cut axis."""

    module: str
    gram: Tensor
    """`W^T W / V`, `(d, d)`."""

    @classmethod
    def of(cls, reshape: Reshape, model: PreTrainedModel) -> _Head | None:
        """The head of a model; None where it reads no cut axis."""
        table = reshape.new.table.vocabulary
        spec = reshape.new.tensors.get(table.head_rows) if table else None
        consumer = as_consumer(spec, model) if spec else None
        if spec is None or consumer is None or spec.shape == reshape.old.tensors[spec.name].shape:
            return None
        weight = wide(model.get_parameter(f"{consumer.module}.weight").detach())
        return cls(consumer.module, weight.T @ weight / len(weight))


def _watch(head: _Head | None, spreads: dict[str, float]) -> list[tuple[str, Hook]]:
    """A hook that notes the spread of the logits, which are not computed."""
    if head is None:
        return []

    def hook(given: Tensor, made: Tensor) -> None:
        flat = wide(given).flatten(0, -2)
        flat = flat - flat.mean(0)
        spreads[head.module] = math.sqrt(max(float((flat @ head.gram * flat).sum(1).mean()), 0.0))

    return [(head.module, hook)]


def _head_names(reshape: Reshape) -> list[str]:
    """What is multiplied so that logits are: the head, or what feeds a tied one."""
    new = reshape.new
    if not new.tied and new.table.vocabulary is not None:
        return [new.table.vocabulary.head_rows]
    norm = new.last_norm
    return [name for name in (f"{norm}.weight", f"{norm}.bias") if name in new.tensors]


def _ratio(before: float, after: float) -> float:
    return before / after if before > 0 and after > 0 else 1.0
