"""A model reading a little text, so that a surgery can see which of its parts are in use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from warmstart.anatomy import Anatomy, anatomy_of_model
from warmstart.foundation.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from warmstart.checkpoint import Checkpoint
    from warmstart.corpus import Corpus
    from warmstart.objectives import Objective

Hook = Callable[["Tensor", "Tensor"], "Tensor | None"]
"""Gets the input and the output of a module, without gradient; what it returns takes the output's place."""


@dataclass
class Calibration:
    """A model, and batches of text for it.

    Attributes:
        model: In evaluation mode.
        batches: Model inputs with `labels`, as the objective's `collate` makes them.
        objective: What the model is asked; only the loss needs it.
        bf16: Compute in bfloat16.
        data: Name of the corpus to its fingerprint, for the lineage.
    """

    model: PreTrainedModel
    batches: Sequence[Mapping[str, Tensor]]
    objective: Objective | None = None
    bf16: bool = False
    data: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def anatomy(self) -> Anatomy:
        """The model's anatomy, with the names that it has in memory; its groups are called as in files."""
        return anatomy_of_model(self.model)

    def read(self, hooks: Iterable[tuple[str, Hook]], *, model: PreTrainedModel | None = None) -> None:
        """Let the model read all batches, without gradients and without logits.

        Args:
            hooks: Module names, and what is called each time that the module was computed. The output layer
                passes its input through.
            model: Another model to read them.
        """
        import torch

        from warmstart.evaluation.head import head_inputs, head_of
        from warmstart.evaluation.likelihood import measuring

        reader = model or self.model
        nowhere = torch.zeros(0, dtype=torch.int64, device=reader.device)
        with measuring(reader, bf16=self.bf16):
            for batch in self.batches[:1]:
                head_of(reader, self._inputs(reader, batch))  # its probe is not for the hooks
            with hooked(reader, hooks):
                for batch in self.batches:
                    head_inputs(reader, self._inputs(reader, batch), nowhere)

    def loss(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Summed loss of a batch in nats, differentiable, and the number of its targets."""
        import torch

        if self.objective is None:
            raise ValueError("a loss needs an objective")
        there = {name: value.to(self.model.device) for name, value in batch.items()}
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.bf16):
            return self.objective.loss(self.model, there)

    def _inputs(self, model: PreTrainedModel, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        there = {name: value.to(model.device) for name, value in batch.items()}
        if self.objective is not None and "labels" in there:
            return self.objective.inputs(model, there)
        return {name: value for name, value in there.items() if name != "labels"}


Calibrate = Callable[[str], Calibration]
"""Gives the calibration to a method, which says its name; raises a `UserError` where there is no text."""


def given(calibration: Calibration | None, *, where: str = "shrink") -> Calibrate:
    """A ready calibration, or the sentence that one is needed, by the operation `where`."""

    def get(method: str) -> Calibration:
        if calibration is None:
            raise UserError(
                f"{method} needs text that the model reads",
                where=where,
                fix="add corpus: … to the settings",
            )
        return calibration

    return get


def calibrate(
    checkpoint: Checkpoint,
    corpus: Corpus,
    *,
    tokens: int,
    block_size: int = 512,
    batch_size: int = 8,
    bf16: bool = False,
    seed: int = 0,
) -> Calibration:
    """Load a checkpoint, and draw blocks of a corpus's train split for it.

    Args:
        checkpoint: What is to read.
        corpus: What is read.
        tokens: How many tokens, rounded up to whole blocks; all blocks if the corpus has fewer.
        block_size: Longest block; the model may allow less.
        batch_size: Blocks that are read at a time.
        bf16: Compute in bfloat16.
        seed: Draws blocks and masks.

    Raises:
        UserError: The corpus has less text than one block.
    """
    import numpy as np
    import torch

    from warmstart.corpus import pack
    from warmstart.evaluation.likelihood import max_positions
    from warmstart.objectives import objectives
    from warmstart.objectives._base import USUAL

    model: Any = checkpoint.load_model()
    tokenizer = checkpoint.load_tokenizer()
    if torch.cuda.is_available():
        model.to("cuda")
    entry = objectives.get(USUAL[checkpoint.task])
    objective = entry.target(entry.settings(), tokenizer)
    packed = pack(corpus, tokenizer, "train", min(block_size, max_positions(model) or block_size))
    rng = np.random.default_rng(seed)
    wanted = min(len(packed), -(-tokens // packed.block_size))
    chosen = np.sort(rng.choice(len(packed), wanted, replace=False))
    batches = []
    for first in range(0, wanted, batch_size):
        ids = np.asarray(packed[chosen[first : first + batch_size]]).astype(np.int64)
        batches.append(objective.collate(ids, np.random.default_rng([seed, first])))
    return Calibration(model, batches, objective, bf16, {corpus.name: corpus.fingerprint})


@contextmanager
def hooked(model: nn.Module, hooks: Iterable[tuple[str, Hook]]) -> Iterator[None]:
    """Call hooks after modules of these names, inside the block."""
    handles = [
        model.get_submodule(name).register_forward_hook(_plain(hook), with_kwargs=True)
        for name, hook in hooks
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _plain(hook: Hook) -> Callable[..., Any]:
    def call(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        given = args[0] if args else kwargs["hidden_states"]
        made = output[0] if isinstance(output, tuple) else output
        return hook(given.detach(), made.detach())

    return call


def wide(tensor: Tensor) -> torch.Tensor:
    """In at least float32: sums over many tokens lose nothing to bfloat16."""
    import torch

    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
