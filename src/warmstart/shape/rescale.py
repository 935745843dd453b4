"""What the weights that read a cut axis are multiplied by, so that what they write keeps its spread."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from warmstart.foundation.errors import UserError
from warmstart.shape.calibration import Calibration, Hook
from warmstart.shape.consumers import Consumer, as_consumer, places
from warmstart.shape.reshape import Read, Reshape
from warmstart.shape.width import Widening, WidthContext

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel

ROUNDS = 4
"""Times that the cut model reads the text; each measures what the former ones changed."""


def keep_scores(context: WidthContext, result: Widening, *, spread: bool) -> None:
    """Factors on queries, for the `e^-1/2` of the smaller head, or of another layer number (GPT-2).

    Args:
        context: The surgery; its queries must already have maps.
        result: Gets the factors.
        spread: Keep the spread of the scores, sums over fewer entries, and not the scores themselves.
    """
    old, new = context.old, context.new
    for stack, count in new.layers.items():
        for layer in range(count):
            origin = context.layers[stack].origin(layer) if stack in context.layers else layer
            ratio = old.score_scale(origin) / new.score_scale(layer)
            if spread:
                ratio *= math.sqrt(old.sizes["e"] / new.sizes["e"])
            if math.isclose(ratio, 1, rel_tol=1e-12):
                continue
            for name, place in new.queries(stack, layer).items():
                result.scale(name, ratio, place)


class _Place(NamedTuple):
    """A weight of the new model that reads a cut axis, and the old one that it comes from."""

    name: str
    """Canonical name in the new model."""
    now: Consumer
    before: Consumer
    outputs: np.ndarray
    """Outputs of the old module that the new one has."""


def calibrated_factors(
    reshape: Reshape, calibration: Calibration, read: Read
) -> dict[str, dict[int | None, float]]:
    """The factors of a surgery, with those under which linear modules write with the spread of the old ones.

    For each module that reads a cut axis, `std before / std after`: the root of the variance over all
    positions, averaged over the outputs that both have. All are measured at once while the cut model reads
    the text, and again after they were applied, four times: a factor changes what later modules read. Before
    a tied head it is the gain of the last norm that is multiplied. Logits are not computed: their variance is
    that of the hidden states seen through `W^T W`.

    Args:
        reshape: The surgery, whose own shares and factors are where the search starts.
        calibration: The old model and its text.
        read: Gives old tensors by canonical name.

    Raises:
        UserError: Experts, and models that transformers holds otherwise than it stores them.
    """
    if reshape.new.table.two_layouts:
        raise UserError(
            f"a {reshape.new.model_type} cannot be rescaled by calibration", fix="take rescale: sqrt"
        )
    model = cut_model(reshape, calibration.model, read)
    found = list(_places(reshape, calibration, model))
    before = _spreads(calibration, calibration.model, {p.before.module: p.outputs for p in found})
    goal_head, factors = _head_spread(reshape, calibration, calibration.model), dict[str, float]()
    for _ in range(ROUNDS):
        whole = {p.now.module: np.arange(p.now.writes.size) for p in found}
        after = _spreads(calibration, model, whole)
        for place in found:
            factor = _ratio(before[place.before.module], after[place.now.module])
            _multiply(model, [place.name], factor, factors)
        if goal_head is not None:
            names = _head_names(reshape)
            head = _head_spread(reshape, calibration, model)
            _multiply(model, names, _ratio(goal_head, head or 0.0), factors)
    merged = {name: dict(places_) for name, places_ in reshape.factors.items()}
    for name, factor in factors.items():
        known = merged.setdefault(name, {})
        known[None] = known.get(None, 1.0) * factor
    return merged


def cut_model(reshape: Reshape, model: PreTrainedModel, read: Read) -> PreTrainedModel:
    """The model that a surgery makes, in memory, of the class of the old one."""
    import torch

    config = type(model.config)(**{**model.config.to_dict(), **dict(reshape.new.config)})
    config._attn_implementation = model.config._attn_implementation
    with torch.random.fork_rng(devices=[]):
        fresh: Any = type(model)(config)
    fresh = fresh.to(model.dtype).eval()
    head, rows = fresh.get_output_embeddings(), fresh.get_input_embeddings()
    if not reshape.new.tied and head is not None and head.weight is rows.weight:  # T5 builds tied ones only
        head.weight = torch.nn.Parameter(torch.empty_like(head.weight))
    own = fresh.state_dict()
    names = [name for name, spec in reshape.new.tensors.items() if name in own and spec.tied_to is None]
    fresh.load_state_dict({name: reshape.tensor(name, read) for name in names}, strict=False)
    moved: PreTrainedModel = fresh.to(model.device)
    return moved


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


def _spreads(
    calibration: Calibration, model: PreTrainedModel, outputs: dict[str, np.ndarray]
) -> dict[str, float]:
    """Module to the standard deviation of chosen outputs: root of the mean of their variances."""
    import torch

    sums: dict[str, tuple[Tensor, Tensor, int]] = {}

    def watch(module: str) -> Hook:
        chosen = torch.from_numpy(outputs[module]).to(model.device)

        def hook(given: Tensor, made: Tensor) -> None:
            flat = made.flatten(0, -2).index_select(1, chosen).double()
            new = flat.sum(0), flat.square().sum(0), len(flat)
            old = sums.get(module)
            sums[module] = new if old is None else (old[0] + new[0], old[1] + new[1], old[2] + new[2])

        return hook

    calibration.read([(module, watch(module)) for module in outputs], model=model)
    return {
        module: math.sqrt(max(float((squares / n - (total / n).square()).mean()), 0.0))
        for module, (total, squares, n) in sums.items()
    }


def _head_spread(reshape: Reshape, calibration: Calibration, model: PreTrainedModel) -> float | None:
    """Standard deviation of the logits; None where the head reads no cut axis, or is no plain matrix."""
    import torch

    table = reshape.new.table.vocabulary
    spec = reshape.new.tensors.get(table.head_rows) if table else None
    consumer = as_consumer(spec, model) if spec else None
    if spec is None or consumer is None or spec.shape == reshape.old.tensors[spec.name].shape:
        return None
    moments: list[tuple[Tensor, Tensor, int]] = []

    def hook(given: Tensor, made: Tensor) -> None:
        flat = given.flatten(0, -2).double()
        new = flat.T @ flat, flat.sum(0), len(flat)
        moments[:] = [tuple(a + b for a, b in zip(moments[0], new))] if moments else [new]  # type: ignore

    calibration.read([(consumer.module, hook)], model=model)
    squares, total, count = moments[0]
    mean = total / count
    weight: torch.Tensor = model.get_parameter(f"{consumer.module}.weight").detach()
    gram = (weight.T @ weight).double()
    variance = ((squares / count - torch.outer(mean, mean)) * gram).sum() / len(weight)
    return math.sqrt(max(float(variance), 0.0))


def _head_names(reshape: Reshape) -> list[str]:
    """What is multiplied so that logits are: the head, or what feeds a tied one."""
    new = reshape.new
    if not new.tied and new.table.vocabulary is not None:
        return [new.table.vocabulary.head_rows]
    norm = new.last_norm
    return [name for name in (f"{norm}.weight", f"{norm}.bias") if name in new.tensors]


def _ratio(before: float, after: float) -> float:
    return before / after if before > 0 and after > 0 else 1.0


def _multiply(model: PreTrainedModel, names: list[str], factor: float, factors: dict[str, float]) -> None:
    import torch

    with torch.no_grad():
        for name in names:
            model.get_parameter(name).mul_(factor)
            factors[name] = factors.get(name, 1.0) * factor
