"""Growing a model by a map that is learned: the small weights stay, and text says how to combine them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from warmstart.foundation.errors import UserError
from warmstart.shape.grow import GrowSettings
from warmstart.shape.learned import growths

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from warmstart.shape.learned._through import GrownWeights


class LearnedGrowthSettings(GrowSettings):
    """Which size, where learning starts, and what is learned."""

    growth: str | dict[str, Any] = "ligo"
    """What is learned: `ligo`, a matrix per axis and mixtures of layers; `mango`, one ring of small tensors
    over all matrices and layers; or a table `{name: mango, rank: 2}` with the way's own settings."""
    depth: str | dict[str, Any] = "stack"
    """What new layers are before learning: `stack`, `interleave`, `span`, `identity`; or a table with the
    way's own settings."""


class LearnedGrowth(NamedTuple):
    """A large model and the map that makes its weights."""

    model: PreTrainedModel
    """The large model, its weights as before learning."""
    weights: GrownWeights
    """The map; to be trained by `through` an objective."""


def grow_learned(small: PreTrainedModel, settings: LearnedGrowthSettings) -> LearnedGrowth:
    """A model of another size whose weights are a learnable function of those of a small one.

    The map holds the tensors of `small`, which are never changed; nothing else of it is needed any more.

    Args:
        small: A causal, masked or encoder-decoder model of a family with a table.
        settings: Which size, and how.

    Raises:
        UserError: What [`grow`][warmstart.shape.grow.grow] raises, or a growth that cannot be learned.
    """
    import torch

    from warmstart.anatomy import anatomy_of_model
    from warmstart.checkpoint.forms import note_of
    from warmstart.shape.learned._begin import begin
    from warmstart.shape.learned._through import GrownWeights

    if (found := note_of(small)) is not None:
        raise UserError(f"the checkpoint is of the form {found['form']}", fix="make it an ordinary one first")
    old = anatomy_of_model(small)
    start = begin(old, GrowSettings(**{name: getattr(settings, name) for name in GrowSettings.model_fields}))
    state = small.state_dict()
    owned = {spec.tied_to or spec.name: state[name] for name, spec in old.match(state).items()}
    way, own = growths.choose(settings.growth, where="growth")
    growth = way.target(own, start, owned, settings.seed)
    before = dict(old.config)
    model = _empty(small, {k: v for k, v in start.new.config.items() if k not in before or before[k] != v})
    weights = GrownWeights(model, growth.to(next(small.parameters()).device))
    weights.write(model)
    torch.nn.Module.train(model, small.training)
    return LearnedGrowth(model, weights)


def _empty(small: PreTrainedModel, changed: dict[str, Any]) -> PreTrainedModel:
    """A model of the same class with other sizes; its weights do not matter."""
    import copy

    import torch

    from warmstart.checkpoint.forms.factorised import separate

    config = type(small.config)(**{**small.config.to_dict(), **changed})
    config._attn_implementation = small.config._attn_implementation
    with torch.random.fork_rng(devices=[]):
        model: PreTrainedModel = type(small)(config)
    head, rows = small.get_output_embeddings(), small.get_input_embeddings()
    if head is not None and head.weight is not rows.weight:
        separate(model)
    if getattr(small, "generation_config", None) is not None:
        model.generation_config = copy.deepcopy(small.generation_config)
    first = next(small.parameters())
    torch.nn.Module.to(model, device=first.device, dtype=first.dtype)
    return model
