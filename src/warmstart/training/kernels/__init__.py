"""Equal but faster parts for known model families, used on CPUs while a model trains.

The operations that torch and transformers compose from many small ones cost little on a GPU, but on a CPU
each is a pass over memory: in a float32 step of a 7M-parameter Llama they take a third of the time, in
bfloat16 half. A part is replaced only where it computes the same function (tests hold it against the original
in float64); in bfloat16 the results differ by rounding and are nearer to the exact ones. What does not fit a
part, such as an attention mask, goes to the original.
"""

from __future__ import annotations

import contextlib
import importlib
import types
from collections.abc import Callable, Iterator

from torch import Tensor, nn

ROTARY_MODULES = tuple(
    f"transformers.models.{name}.modeling_{name}" for name in ("llama", "mistral", "qwen2", "qwen3")
)
"""Modules whose `apply_rotary_pos_emb` rotates all of q and k by halves."""


@contextlib.contextmanager
def fast_kernels(model: nn.Module, *, enabled: bool = True) -> Iterator[None]:
    """Inside the block `model` runs on the faster parts.

    Attention and rotary embedding are functions that all models of the process share: inside the block they
    are replaced for all, with the same results.
    """
    if not enabled:
        yield
        return
    from transformers import AttentionInterface
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    from warmstart.training.kernels import attention, linear, rms_norm, rotary

    with contextlib.ExitStack() as undo:

        def replace(layer: nn.Module, forward: Callable[..., Tensor]) -> None:
            vars(layer)["forward"] = types.MethodType(forward, layer)
            undo.callback(vars(layer).pop, "forward")

        for layer in model.modules():
            if type(layer).__name__ in rms_norm.CLASSES and "forward" not in vars(layer):
                replace(layer, rms_norm.layer_forward)
        # The chunked loss multiplies by the head's rows itself, and looks whether the head is a plain layer.
        head = getattr(model, "get_output_embeddings", lambda: None)()
        for layer in model.modules():
            if layer is head:
                continue
            if linear.worth_it() and type(layer) is nn.Linear and "forward" not in vars(layer):
                replace(layer, linear.layer_forward)
        sdpa = ALL_ATTENTION_FUNCTIONS["sdpa"]
        AttentionInterface.register("sdpa", attention.around(sdpa))
        undo.callback(AttentionInterface.register, "sdpa", sdpa)
        used = {type(part).__module__ for part in model.modules()}
        for name in used.intersection(ROTARY_MODULES):
            module = importlib.import_module(name)
            original = module.apply_rotary_pos_emb
            module.apply_rotary_pos_emb = rotary.around(original)  # type: ignore[attr-defined]
            undo.callback(setattr, module, "apply_rotary_pos_emb", original)
        yield
