"""What makes one sub-network better than another, untrained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from warmstart.foundation.tasks import Task


class Judge(ABC):
    """A loss of a model on held-out texts.

    Args:
        tokenizer: Of the source, and so of all its sub-networks.
        texts: Held-out texts.
        context_length: Tokens that a model sees at once.
        bf16: Compute in bfloat16.
    """

    unit: ClassVar[str]
    """What the loss is."""
    worst: ClassVar[float]
    """The loss of someone who knows nothing; the reference of the hypervolume."""

    def __init__(
        self, tokenizer: Any, texts: Sequence[str], *, context_length: int, bf16: bool = False
    ) -> None:
        self.tokenizer, self.texts = tokenizer, texts
        self.context_length, self.bf16 = context_length, bf16

    @abstractmethod
    def __call__(self, model: PreTrainedModel, texts: Sequence[str] | None = None) -> tuple[float, int]:
        """Loss, and the number of tokens that it was measured on.

        Args:
            model: A sub-network.
            texts: Other texts than those of the search.
        """


class BitsPerByte(Judge):
    """How well the words of the texts are predicted."""

    unit = "bits per byte"
    worst = 8.0

    def __init__(self, *given: Any, task: Task, **options: Any) -> None:
        super().__init__(*given, **options)
        self.task = task

    def __call__(self, model: PreTrainedModel, texts: Sequence[str] | None = None) -> tuple[float, int]:
        from warmstart.evaluation import bits_per_byte

        found = bits_per_byte(
            model,
            self.tokenizer,
            self.texts if texts is None else texts,
            task=self.task,
            context_length=self.context_length,
            bf16=self.bf16,
        )
        return found.bpb, found.tokens


class Disagreement(Judge):
    """How far the order of similarities between sentences is from the source's: `1 - rho`, for encoders
    without a head. See [`agreement`][warmstart.evaluation.similarity.agreement].

    Args:
        *given: As for every judge.
        source: The model whose order is right.
        **options: As for every judge.
    """

    unit = "rank disagreement with the source"
    worst = 1.0

    def __init__(self, *given: Any, source: PreTrainedModel, **options: Any) -> None:
        super().__init__(*given, **options)
        self._source, self._right = source, dict[tuple[str, ...], Any]()

    def __call__(self, model: PreTrainedModel, texts: Sequence[str] | None = None) -> tuple[float, int]:
        from warmstart.evaluation.similarity import agreement

        read = tuple(self.texts if texts is None else texts)
        if read not in self._right:
            self._right[read] = self._vectors(self._source, read)
        cut = self.tokenizer(list(read), truncation=True, max_length=self.context_length)["input_ids"]
        return 1 - agreement(self._vectors(model, read), self._right[read]), sum(len(ids) for ids in cut)

    def _vectors(self, model: PreTrainedModel, texts: Sequence[str]) -> Any:
        from warmstart.evaluation.retrieval import sentence_vectors

        return sentence_vectors(model, self.tokenizer, texts, max_length=self.context_length, bf16=self.bf16)
