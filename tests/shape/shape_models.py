"""Small models of every family in two sizes, and how far their functions are apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from anatomy_models import build, config_of, float64_throughout, inputs_of, stored, task_class
from safetensors.torch import save_file

from warmstart.anatomy import Anatomy, anatomy_of_model
from warmstart.shape.reshape import Reshape


def logits(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad(), float64_throughout(model):
        return model(**inputs).logits


def made(reshape: Reshape, model: Any) -> Any:
    """The model that a surgery makes, loaded by name: nothing may be missing or left over."""
    config = type(model.config)(**{**model.config.to_dict(), **dict(reshape.new.config)})
    config._attn_implementation = "eager"
    fresh = task_class(config).from_config(config).double().eval()
    if not reshape.new.tied and getattr(fresh, "lm_head", None) is not None:  # T5 builds tied ones only
        head = fresh.get_output_embeddings()
        if head.weight is fresh.get_input_embeddings().weight:
            head.weight = torch.nn.Parameter(torch.empty_like(head.weight))
    state = dict(reshape.state(model.state_dict()))
    outcome = fresh.load_state_dict(state, strict=False)
    assert not outcome.unexpected_keys
    owned = {id(value) for name, value in fresh.named_parameters(remove_duplicate=False) if name in state}
    assert [name for name, value in fresh.named_parameters() if id(value) not in owned] == []
    assert anatomy_of_model(fresh).sizes == reshape.new.sizes
    return fresh


def difference(variant: str, grow: Any) -> tuple[float, Reshape]:
    """Largest difference of the logits before and after, over their own size."""
    model = build(variant)
    reshape = grow(anatomy_of_model(model))
    inputs = inputs_of(model)
    before, after = logits(model, inputs), logits(made(reshape, model), inputs)
    return float((before - after).abs().max() / before.abs().max()), reshape


def files_of(model: Any) -> tuple[Anatomy, dict[str, torch.Tensor]]:
    """Anatomy and tensors as files have them."""
    state = stored(model, "files")
    anatomy = anatomy_of_model(model).in_layout("files")
    return anatomy, {spec.tied_to or spec.name: state[name] for name, spec in anatomy.match(state).items()}


def loaded(reshape: Reshape, tensors: dict[str, torch.Tensor], variant: str, folder: Path) -> Any:
    """What transformers makes of the files of a surgery."""
    made = {
        name: reshape.tensor(name, tensors.__getitem__).clone()
        for name, spec in reshape.new.tensors.items()
        if spec.tied_to is None and reshape.origin(spec).name in tensors
    }
    save_file(made, folder / "model.safetensors", metadata={"format": "pt"})
    config, old = config_of(variant), reshape.old.config
    changed = {key: value for key, value in reshape.new.config.items() if old.get(key) != value}
    type(config)(**{**config.to_dict(), **changed}).save_pretrained(folder)
    options = {"dtype": torch.float64, "attn_implementation": "eager", "output_loading_info": True}
    if "num_experts_per_tok" in reshape.new.config:
        options["experts_implementation"] = "eager"
    model, info = task_class(config).from_pretrained(folder, **options)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    return model.eval()
