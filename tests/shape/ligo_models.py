"""Learned growths of the small models of every family."""

from __future__ import annotations

from typing import Any

import torch
from anatomy_models import VARIANTS, build
from shape_models import made

from warmstart.anatomy import Anatomy, anatomy_of_model
from warmstart.shape.grow import GrowSettings, grow
from warmstart.shape.grow_learned import LearnedGrowth, LearnedGrowthSettings, grow_learned

OTHERS = ("mixtral", "olmoe", "qwen2_moe", "qwen3_moe", "vit", "deit")
PLAIN = [name for name in VARIANTS if not name.endswith("-cross") and not name.startswith(OTHERS)]
KEYS = {  # role of a size: its configuration keys in the families
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "units": ("intermediate_size", "n_inner", "d_ff"),
    "heads": ("num_attention_heads", "n_head", "num_heads"),
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
}
EVEN = {"name": "exact", "split": "even"}


def sizes(anatomy: Anatomy, to: dict[str, int]) -> dict[str, int]:
    """Configuration keys and values for sizes by their roles; units are counted from those there are."""
    keys = {role: next(k for k in KEYS.get(role, (role,)) if k in anatomy.table.config) for role in to}
    return {keys[role]: n + anatomy.sizes["F"] * (role == "units") for role, n in to.items()}


def learned(variant: str, to: dict[str, int], **settings: Any) -> tuple[Any, LearnedGrowth]:
    """A small model and a growth of it that has learned nothing."""
    small = build(variant)
    named = sizes(anatomy_of_model(small), to)
    return small, grow_learned(small, LearnedGrowthSettings.parse({"to": named, **settings}))


def copied(small: Any, to: dict[str, int], **settings: Any) -> Any:
    """The same small model grown without learning."""
    anatomy = anatomy_of_model(small)
    return made(grow(anatomy, GrowSettings.parse({"to": sizes(anatomy, to), **settings})), small)


def stirred(found: LearnedGrowth) -> LearnedGrowth:
    """The growth as if it had learned: everything in it is random."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in found.weights.growth.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return found


def apart(one: Any, other: Any) -> float:
    """Largest difference of two models' parameters, which must have the same names."""
    first, second = dict(one.named_parameters()), dict(other.named_parameters())
    assert list(first) == list(second)
    return max(float((first[name] - second[name]).detach().abs().max()) for name in first)
