"""Token losses of any transformers model without its full logits.

A model's `forward` runs body, head transform, output matrix and loss in one go. The output matrix is the last
`Linear` of nearly every family, so we let the model's own `forward` run with that one layer passing its input
through, and apply the matrix ourselves, only at positions with a target and chunk by chunk
([`linear_cross_entropy`][warmstart.evaluation.cross_entropy.linear_cross_entropy]). All before the matrix
(the dense layer of BERT and RoBERTa heads, T5's `d_model ** -0.5`) stays the model's own code, for every
family.

What comes after the matrix (Cohere and Granite scale their logits, Gemma 2 squashes them) is found by one
probe on the first batch: the model's logits are compared with the matrix's output. A plain head and these two
transformations are handled exactly; any other head, or an output layer that is not a plain `Linear`
(adapters, quantised layers), falls back to the model's full logits.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from warmstart.evaluation.cross_entropy import linear_cross_entropy


@dataclass(frozen=True)
class Head:
    """How a model turns the input of its output layer into logits: `softcap(scale * (h W^T + b))`.

    Attributes:
        linear: The output layer; None when only the model's own full logits are right.
        scale: Factor on the logits.
        softcap: `c` of `c tanh(x / c)`, None without.
        options: Arguments that keep the model's `forward` from doing needless work.
    """

    linear: nn.Linear | None
    scale: float = 1.0
    softcap: float | None = None
    options: dict[str, bool] = field(default_factory=dict)

    @property
    def plain(self) -> bool:
        """Whether the output of the layer is the logits."""
        return self.scale == 1.0 and self.softcap is None

    def finished(self, output: Tensor) -> Tensor:
        """Logits from the output of the layer."""
        found = output if self.scale == 1.0 else output * self.scale
        return found if self.softcap is None else self.softcap * torch.tanh(found / self.softcap)


_heads: weakref.WeakKeyDictionary[nn.Module, Head] = weakref.WeakKeyDictionary()


@torch.compiler.disable(recursive=False)  # the model inside is compiled; patching its head is not for tracing
def token_losses(
    model: nn.Module, inputs: Mapping[str, Any], targets: Tensor, *, token_weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Loss of `targets` given the model's logits at the same positions.

    Args:
        model: A transformers model with a language-modelling head, causal, masked or encoder-decoder; it may
            be compiled, wrapped in DDP, or sharded by FSDP2 (then call this inside the root's `forward`).
        inputs: Keyword arguments of its `forward`, without labels.
        targets: The token that position i must predict, (B, L) int64; -100 where there is none. A causal
            model takes the ids shifted left by one.
        token_weights: Factor of each token in the sum, (B, L).

    Returns:
        The (weighted) sum in nats (scalar, differentiable) and the unweighted loss of each of the N targets
        in row-major order, (N,), without gradient.
    """
    flat = targets.reshape(-1)
    where = (flat != -100).nonzero()[:, 0]
    goal = flat[where]
    weights = None if token_weights is None else token_weights.reshape(-1)[where]
    head, hidden = head_inputs(model, inputs, where)
    if head.linear is None:
        losses = F.cross_entropy(_exact(hidden), goal, reduction="none")
        return (losses if weights is None else losses * weights).sum(), losses.detach()
    weight, bias = _whole(head.linear.weight), _whole(head.linear.bias)
    if head.scale != 1.0:
        hidden = hidden * head.scale
        bias = None if bias is None else bias * head.scale
    return linear_cross_entropy(hidden, weight, bias, goal, token_weights=weights, softcap=head.softcap)


@torch.compiler.disable(recursive=False)
def head_inputs(model: nn.Module, inputs: Mapping[str, Any], where: Tensor) -> tuple[Head, Tensor]:
    """The model's head, and what enters its matrix at chosen positions.

    Args:
        model: As in `token_losses`.
        inputs: Keyword arguments of its `forward`, without labels.
        where: Positions, (N,): row times length plus place.

    Returns:
        The head, and (N, H); the logits (N, V) themselves where the head is no plain matrix.
    """
    head = head_of(model, inputs)
    if head.linear is None:
        logits = model(**inputs, **head.options).logits
        return head, logits.reshape(-1, logits.shape[-1])[where]
    seen: list[Tensor] = []
    with _replaced(head.linear, _identity if head.plain else _keeping(seen)):
        hidden = model(**inputs, **head.options).logits
    if not head.plain:
        hidden = seen[0]
    return head, hidden.reshape(-1, hidden.shape[-1]).index_select(0, where)


@torch.compiler.disable
def head_logits(head: Head, states: Tensor) -> Tensor:
    """Logits (N, V) of what `head_inputs` returned, or of some of its rows; float32 (float64 stays)."""
    if head.linear is None:
        return _exact(states)
    return head.finished(_exact(F.linear(states, _whole(head.linear.weight), _whole(head.linear.bias))))


def head_of(model: nn.Module, inputs: Mapping[str, Any]) -> Head:
    """The model's head, found by a probe on the first row of `inputs` at the first call.

    The probe lets the output layer return noise and looks at what the model makes of it. It leaves weights,
    gradients and random number generators as they were.
    """
    inner = unwrap(model)
    known = _heads.get(inner)
    if known is None or (known.linear is not None and known.linear is not _output_layer(inner)):
        known = _heads[inner] = _probe(model, inner, inputs)
    return known


def unwrap(model: nn.Module) -> Any:
    """The transformers model inside DDP and `torch.compile` wrappers."""
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        elif hasattr(model, "_orig_mod"):
            model = model._orig_mod  # type: ignore[assignment]
        else:
            return model


@torch.compiler.disable
def _probe(model: nn.Module, inner: Any, inputs: Mapping[str, Any]) -> Head:
    accepted = inspect.signature(inner.forward).parameters
    options = {k: v for k, v in {"use_cache": False, "return_dict": True}.items() if k in accepted}
    linear = _output_layer(inner)
    if linear is None:
        return Head(None, options=options)
    first = {k: v[:1] if isinstance(v, Tensor) and v.dim() else v for k, v in inputs.items()}
    noise: list[Tensor] = []

    def answer(x: Tensor) -> Tensor:
        draw = torch.Generator().manual_seed(len(noise))
        values = 20 * torch.randn(linear.out_features, generator=draw)
        noise.append(values.to(x).expand(*x.shape[:-1], -1).contiguous())
        return noise[-1]

    def run(forward: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.no_grad(), torch.random.fork_rng(devices), _replaced(linear, forward):
            return inner(**first, **options).logits

    devices = [linear.weight.device] if linear.weight.is_cuda else []
    logits = run(answer)
    if len(noise) != 1 or logits.shape != noise[0].shape:
        return Head(None, options=options)
    try:  # BART adds a row of V numbers to its logits
        run(_identity)
    except RuntimeError:
        return Head(None, options=options)
    given, made = _exact(noise[0]), _exact(logits)
    if torch.equal(given, made):
        return Head(linear, options=options)
    scale, softcap = _declared(inner.config)
    expected = given * scale
    if softcap is not None:
        expected = softcap * torch.tanh(expected / softcap)
    rounding = 4 * torch.finfo(logits.dtype).eps
    if torch.allclose(expected, made.to(expected), rtol=rounding, atol=rounding):
        return Head(linear, scale, softcap, options)
    return Head(None, options=options)


def _declared(config: Any) -> tuple[float, float | None]:
    """Scale and soft cap of the logits that the config names (Cohere, Granite; Gemma)."""
    scale = 1.0
    if getattr(config, "logit_scale", None) is not None:
        scale = float(config.logit_scale)
    elif getattr(config, "logits_scaling", None) is not None:
        scale = 1.0 / config.logits_scaling
    return scale, getattr(config, "final_logit_softcapping", None)


def _output_layer(inner: Any) -> nn.Linear | None:
    """The output matrix when it is an unaltered `Linear`; adapters and quantised layers are not."""
    layer = inner.get_output_embeddings() if hasattr(inner, "get_output_embeddings") else None
    usual = isinstance(layer, nn.Linear) and type(layer).forward is nn.Linear.forward
    return layer if usual and "forward" not in vars(layer) else None


@contextmanager
def _replaced(layer: nn.Module, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    layer.forward = forward
    try:
        yield
    finally:
        del layer.forward


def _identity(x: Tensor) -> Tensor:
    return x


def _keeping(seen: list[Tensor]) -> Callable[[Tensor], Tensor]:
    def keep(x: Tensor) -> Tensor:
        seen.append(x)
        return x

    return keep


def _whole(parameter: Any) -> Any:
    """A parameter that FSDP2 has sharded on its own, gathered; others as they are."""
    return parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter


def _exact(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
