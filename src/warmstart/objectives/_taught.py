"""What objectives with a teacher share: the frozen model that has read the same text in its own tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from warmstart.foundation.errors import UserError
from warmstart.objectives._parallel import collate_parallel
from warmstart.objectives.causal import Causal

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Taught(Causal):
    """A causal objective with a frozen teacher, which may cut the text into other tokens.

    Args:
        settings: Options of the objective.
        tokenizer: Tokenizer of the student.
        teacher: Frozen model; the trained model itself by default, which is right as long as nothing learns
            but rows of tokens that the teacher's text does not contain.
    """

    parts: ClassVar[tuple[str, ...]] = ("teacher",)
    parallel = True

    def __init__(
        self,
        settings: Any,
        tokenizer: PreTrainedTokenizerBase,
        *,
        teacher: PreTrainedModel | None = None,
    ) -> None:
        super().__init__(settings, tokenizer)
        self.tutor = teacher
        if teacher is not None:
            from warmstart.training.identity import weights_sample

            self.fingerprint = weights_sample(teacher)

    def teacher(self, model: nn.Module) -> nn.Module:
        """Who teaches `model`."""
        return model if self.tutor is None else self.tutor

    def prepare(self, model: nn.Module, device: torch.device) -> None:
        """Freeze the teacher and move it to `device`; frozen weights that it shares with `model` exist once.

        Raises:
            UserError: The model is its own teacher although its body learns.
        """
        import torch

        if self.tutor is None:
            from warmstart.training.parameters import vocabulary_parameters

            rows = vocabulary_parameters(model)  # type: ignore[arg-type]
            if any(p.requires_grad and p not in rows for p in model.parameters()):
                raise UserError(
                    "a model whose body learns cannot be its own teacher",
                    fix="set trainable: embeddings, or give a teacher",
                )
            return
        teacher = self.tutor.eval().requires_grad_(False)
        torch.nn.Module.to(teacher, device)
        own = dict(model.named_parameters())
        for name, parameter in teacher.named_parameters():
            twin = own.get(name)
            if twin is None or twin.requires_grad or hasattr(twin, "device_mesh"):
                continue
            if twin.dtype == parameter.dtype and torch.equal(twin, parameter):
                parameter.data = twin.data

    def collate(self, blocks: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
        """`input_ids`, `labels` and `ends` of the student, `teacher_ids`; see `objectives._parallel`."""
        return collate_parallel(blocks)
