"""What objectives share that begin with the lower layers of a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import Field

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings
from warmstart.objectives._drawn import Drawn, refuse_recomputed

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class TwoStageSettings(Settings):
    """How long sub-models learn, and which there are."""

    until: float = Field(default=0.125, ge=0, le=1)
    """Share of the budget in which sub-models learn; the whole model does after it. bert2BERT: 5 of 40
    epochs."""
    layers: int = Field(default=3, ge=1)
    """Layers of the smallest sub-model; the others have multiples of it, and each learns that many."""
    seed: int = Field(default=0, ge=0)
    """Draws the sub-model of a step, together with the step's place in the budget."""


class TwoStage(Drawn):
    """A plain objective, at first asked of the bottom `k * layers` layers alone, under the model's head.

    k is drawn for each step, uniformly. Of the sub-model its top `layers` layers learn, and the head; the
    lowest sub-model's input rows learn as well, since nothing below them could. Layers above it are not
    computed. Which sub-model a step has depends on the seed and on the step's place in the budget, so that a
    run that is continued draws what it would have drawn. FLOPs are counted as if all layers learned always:
    an upper bound. Before `prepare` it is the plain objective.
    """

    settings: Any

    def __init__(self, settings: Any, tokenizer: Any) -> None:
        super().__init__(settings, tokenizer)
        self._blocks: list[nn.Module] = []

    def prepare(self, model: nn.Module, device: torch.device) -> None:
        """Find the layers.

        Raises:
            UserError: Two stacks, layers that do not divide, several processes, or blocks that are computed
                again.
        """
        import torch

        from warmstart.anatomy import anatomy_of_model

        where = "two-stage"
        anatomy = anatomy_of_model(model)  # type: ignore[arg-type]
        if len(anatomy.layers) != 1:
            raise UserError("sub-models are made of models with one stack of layers", where=where)
        ((stack, depth),) = anatomy.layers.items()
        if depth % self.settings.layers:
            able = [n for n in range(1, depth + 1) if depth % n == 0]
            raise UserError(
                f"{depth} layers cannot be divided into sub-models of {self.settings.layers}",
                where=where,
                fix=f"set layers to one of {', '.join(map(str, able))}",
            )
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            raise UserError(
                "sub-models learn in one process: others would wait for gradients that there are not",
                where=where,
                fix="use one process, or another objective",
            )
        refuse_recomputed(model, "blocks that are computed again do not know their sub-model", where=where)
        names = [anatomy.site("block", stack=stack, layer=layer) for layer in range(depth)]
        self._blocks = [model.get_submodule(name) for name in names]

    def height(self) -> int:
        """Layers of the step's sub-model; all in the second stage."""
        depth, part = len(self._blocks), self.settings.layers
        if self.progress >= self.settings.until:
            return depth
        return part * int(self.draws().integers(1, depth // part + 1))

    def loss(
        self, model: nn.Module, batch: dict[str, Tensor], companions: nn.Module | None = None
    ) -> tuple[Tensor, Tensor]:
        """The plain loss, of the step's sub-model."""
        import torch

        whole = not self._blocks or self.progress >= self.settings.until
        if whole or not torch.is_grad_enabled():
            return super().loss(model, batch, companions)
        with _only(self._blocks, self.height() - self.settings.layers, self.height()):
            return super().loss(model, batch, companions)


@contextmanager
def _only(blocks: list[nn.Module], first: int, last: int) -> Iterator[None]:
    """Inside the block no layer from `last` on is computed, and none below `first` learns."""
    kinds: list[tuple[Any, ...] | None] = []

    def note(module: nn.Module, args: Any, output: Any) -> None:
        kinds.append(tuple(output[1:]) if isinstance(output, tuple) else None)

    def passed(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        return hidden_states if kinds[0] is None else (hidden_states, *kinds[0])

    with ExitStack() as undo:
        undo.callback(blocks[0].register_forward_hook(note).remove)
        if first:
            undo.callback(blocks[first - 1].register_forward_hook(_detached).remove)
        for block in blocks[last:]:
            before: Any = block.__dict__.get("forward")
            block.forward = passed
            undo.callback(_restore, block, before)
        yield


def _restore(block: nn.Module, before: Any) -> None:
    del block.forward
    if before is not None:
        block.forward = before


def _detached(module: nn.Module, args: Any, output: Any) -> Any:
    return (output[0].detach(), *output[1:]) if isinstance(output, tuple) else output.detach()
