"""Upcycling: a mixture of experts whose experts are copies or shards of a dense model's MLPs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from warmstart.checkpoint.architecture import configuration
from warmstart.checkpoint.shards import Planned
from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings
from warmstart.shape.draws import generator_of

if TYPE_CHECKING:
    import torch

_LAYER = re.compile(r"^(?P<block>.*layers\.\d+\.)mlp\.(?P<part>gate_proj|up_proj|down_proj)\.weight$")
_MIXTRAL = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}
_SHARED_UNITS = 8  # of a shared expert that adds nothing


class UpcycleSettings(Settings):
    """How many experts, how fine, and how tokens are sent to them."""

    experts: int = Field(default=8, ge=2)
    """E: how often each MLP is copied."""
    granularity: int = Field(default=1, ge=1)
    """G: into how many experts each copy is cut; there are E G experts of a G-th of the units."""
    experts_per_token: int = Field(default=2, ge=1)
    """T: experts that a token is sent to, a multiple of the granularity."""
    routing: Literal["topk-softmax", "softmax-topk"] = "topk-softmax"
    """`topk-softmax`: the weights of the chosen experts add up to one (Mixtral). `softmax-topk`: they are
    their shares among all experts."""
    scale: Literal["auto", "none"] = "auto"
    """Whether output projections are scaled so that the mixture's output has the dense size."""
    router_std: float | None = Field(default=None, ge=0)
    """Standard deviation of the router's weights; the model's own `initializer_range` where not given."""
    router_aux_loss_coef: float = Field(default=1e-2, ge=0)
    """Weight of the load-balancing loss, written into the configuration."""
    seed: int = Field(default=0, ge=0)
    """Seed of the routers."""

    @model_validator(mode="after")
    def _whole_groups(self) -> UpcycleSettings:
        if self.experts_per_token % self.granularity:
            raise ValueError(
                f"experts_per_token ({self.experts_per_token}) must be a multiple of granularity "
                f"({self.granularity}): a token is sent to whole copies"
            )
        if self.experts_per_token > self.experts * self.granularity:
            raise ValueError("a token cannot be sent to more experts than there are")
        return self

    @property
    def total(self) -> int:
        """Experts of a layer."""
        return self.experts * self.granularity

    @property
    def factor(self) -> float:
        """Factor on the output projections of the experts."""
        if self.scale == "none":
            return 1.0
        if self.routing == "topk-softmax":
            return float(self.granularity)
        return self.experts * self.granularity**2 / self.experts_per_token


@dataclass(frozen=True)
class Upcycling:
    """A mixture made of a dense checkpoint.

    Attributes:
        settings: How many experts, and how they are used.
        config: The new `config.json`.
        tensors: What will be stored, in order.
        inexact: Why the mixture does not compute what the dense model did; empty where it does.
    """

    settings: UpcycleSettings
    config: dict[str, Any]
    tensors: tuple[Planned, ...]
    inexact: tuple[str, ...]
    _origin: dict[str, tuple[str, str, int]]

    def tensor(self, name: str, read: Callable[[str], torch.Tensor]) -> torch.Tensor:
        """A stored tensor of the mixture; one that stays as it is comes back as it was read.

        Args:
            name: Its name on disk.
            read: Gives tensors of the dense checkpoint by their names on disk.
        """
        import torch

        source, part, expert = self._origin[name]
        settings = self.settings
        if part == "router":
            like = read(source)
            width = like.shape[1]
            std = self.config["initializer_range"] if settings.router_std is None else settings.router_std
            rows = torch.randn(settings.experts, width, generator=generator_of(settings.seed, name)) * std
            return rows.repeat_interleave(settings.granularity, dim=0).to(like.dtype)
        if part == "zero":
            planned = next(tensor for tensor in self.tensors if tensor.name == name)
            return torch.zeros(planned.shape, dtype=read(source).dtype)
        if part == "":
            return read(source)
        dense = read(source)
        units = dense.shape[1 if part == "down_proj" else 0] // settings.granularity
        shard = slice((expert % settings.granularity) * units, (expert % settings.granularity + 1) * units)
        if part != "down_proj":
            return dense[shard].clone() if settings.granularity > 1 else dense
        down = dense[:, shard]
        if settings.factor == 1:
            return down.contiguous()
        wide = torch.promote_types(down.dtype, torch.float32)
        return (down.to(wide) * settings.factor).to(down.dtype)


def upcycle(
    config: dict[str, Any], stored: dict[str, Planned], settings: UpcycleSettings, *, where: object = None
) -> Upcycling:
    """The mixture that a dense Llama, Mistral, Qwen2 or Qwen3 becomes (He et al., arXiv 2410.07524).

    Every expert of a coarse mixture (G = 1) is a copy of the dense MLP, so whatever the router says, weights
    that add up to one give back the dense output: it is exact. A fine mixture (G > 1) cuts each copy into G
    shards; E router rows are drawn and each is repeated G times ("virtual groups"), so that the T best
    experts are T / G whole copies. Scaling the output projection alone by G is then exact for any
    activation, and by `E G^2 / T` about right for `softmax-topk`, where the chosen weights do not add up to
    one. The released code (Megatron) takes the cube root of the factor in both matrices, which is wrong for
    gated activations.

    Llama and Mistral become Mixtral, or Qwen2-MoE for `softmax-topk`; Qwen2 becomes Qwen2-MoE; Qwen3 becomes
    Qwen3-MoE. Qwen2-MoE always has a shared expert; here it is tiny and adds nothing.

    Args:
        config: The dense `config.json`.
        stored: Names on disk of the dense tensors, with type and shape.
        settings: How many experts, and how they are used.
        where: The checkpoint, for messages.

    Raises:
        UserError: Another architecture, biases or sliding windows that the mixture has no place for, or units
            that do not divide.
    """
    target = _target(str(config.get("model_type")), settings, where)
    config = configuration(config)
    if target == "qwen3_moe" and "sliding_attention" in config["layer_types"]:
        raise UserError(
            "the blocks of a qwen3_moe all see equally far, and here some have a sliding window", where=where
        )
    if target == "qwen2_moe" and config["model_type"] == "mistral" and config["sliding_window"]:
        raise UserError(
            "a Mistral with a sliding window has no sibling for softmax-topk",
            where=where,
            fix="take topk-softmax",
        )
    units = int(config["intermediate_size"])
    if units % settings.granularity:
        divisors = [g for g in range(2, 65) if units % g == 0]
        raise UserError(
            f"{units} units cannot be cut into {settings.granularity} equal experts",
            where=where,
            fix=f"possible are {', '.join(map(str, divisors[:8]))}",
        )
    if unplaced := [name for name in stored if name.endswith(".bias") and not _placed(name, target, config)]:
        raise UserError(f"a {target} has no place for {unplaced[0]}", where=where)
    origin: dict[str, tuple[str, str, int]] = {}
    tensors = []
    for name, source, part, expert, shape in _layout(stored, target, settings):
        origin[name] = source, part, expert
        tensors.append(Planned(name, stored[source].dtype, shape))
    inexact = []
    if settings.routing == "softmax-topk" and settings.experts_per_token < settings.total:
        inexact.append("the weights of the chosen experts do not add up to one")
    elif settings.factor != settings.granularity:
        inexact.append("the output of shards is not scaled")
    return Upcycling(settings, _config(config, target, settings), tuple(tensors), tuple(inexact), origin)


def _target(dense: str, settings: UpcycleSettings, where: object) -> str:
    plain = "mixtral" if settings.routing == "topk-softmax" else "qwen2_moe"
    targets = {"llama": plain, "mistral": plain, "qwen2": "qwen2_moe", "qwen3": "qwen3_moe"}
    if dense not in targets:
        raise UserError(
            f"a {dense} cannot be upcycled here", where=where, fix=f"known are {', '.join(sorted(targets))}"
        )
    return targets[dense]


def _placed(name: str, target: str, config: dict[str, Any]) -> bool:
    if "mlp." in name or target == "mixtral":
        return False
    return not name.endswith("o_proj.bias") or (target == "qwen3_moe" and bool(config.get("attention_bias")))


def _layout(
    stored: dict[str, Planned], target: str, settings: UpcycleSettings
) -> Iterator[tuple[str, str, str, int, tuple[int, ...]]]:
    """Name, source, part, expert and shape of everything that the mixture stores."""
    for name, planned in stored.items():
        found = _LAYER.match(name)
        if not found:
            yield name, name, "", 0, planned.shape
            continue
        block, part = found["block"], found["part"]
        rows, columns = planned.shape
        small = (rows, columns // settings.granularity)
        shape = small if part == "down_proj" else (rows // settings.granularity, columns)
        place = "block_sparse_moe" if target == "mixtral" else "mlp"
        if part == "gate_proj":
            yield f"{block}{place}.gate.weight", name, "router", 0, (settings.total, columns)
        for expert in range(settings.total):
            own = _MIXTRAL[part] if target == "mixtral" else part
            yield f"{block}{place}.experts.{expert}.{own}.weight", name, part, expert, shape
        if target == "qwen2_moe":
            silent = (rows, _SHARED_UNITS) if part == "down_proj" else (_SHARED_UNITS, columns)
            yield f"{block}mlp.shared_expert.{part}.weight", name, "zero", 0, silent
            if part == "gate_proj":
                yield f"{block}mlp.shared_expert_gate.weight", name, "zero", 0, (1, columns)


def _config(config: dict[str, Any], target: str, settings: UpcycleSettings) -> dict[str, Any]:
    from transformers import AutoConfig

    own = AutoConfig.for_model(target).to_dict()
    kept = {key: value for key, value in config.items() if key in own}
    classes = {"mixtral": "Mixtral", "qwen2_moe": "Qwen2Moe", "qwen3_moe": "Qwen3Moe"}
    units = config["intermediate_size"] // settings.granularity
    changed: dict[str, Any] = {
        "model_type": target,
        "architectures": [f"{classes[target]}ForCausalLM"],
        "num_experts_per_tok": settings.experts_per_token,
        "router_aux_loss_coef": settings.router_aux_loss_coef,
    }
    if target == "mixtral":
        changed |= {"num_local_experts": settings.total, "intermediate_size": units}
        changed |= {"sliding_window": config.get("sliding_window")}  # a Llama has none
    else:
        changed |= {"num_experts": settings.total, "moe_intermediate_size": units, "decoder_sparse_step": 1}
        changed |= {"norm_topk_prob": settings.routing == "topk-softmax", "mlp_only_layers": []}
    if target == "qwen2_moe":
        changed |= {"shared_expert_intermediate_size": _SHARED_UNITS}
        changed |= {"qkv_bias": config["model_type"] == "qwen2"}
    if config.get("head_dim"):
        changed["head_dim"] = config["head_dim"]
    return kept | changed
