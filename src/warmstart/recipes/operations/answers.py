"""Step type `answers`: how many answers of texts does a model know?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import Field

from warmstart.corpus.settings import CorpusSettings
from warmstart.foundation.files import atomic_folder
from warmstart.foundation.settings import Settings
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner

if TYPE_CHECKING:
    from warmstart.corpus import Corpus, Document
    from warmstart.corpus.answers import AnswerTexts
    from warmstart.corpus.splitting import Split


class AnswersSettings(Settings):
    """Answers of held-out texts under a causal model."""

    source: str = Field(min_length=1)
    """Causal checkpoint: folder, hub id, `name@revision`, named source or `${step}`."""
    corpus: CorpusSettings
    """Texts with an answer at their end."""
    marker: str = Field(default="\nA:", min_length=1)
    """What stands in front of an answer, which goes from the last one to the end of the text."""
    eval_split: Literal["valid", "test"] = "test"
    """Part of the corpus that is read."""
    eval_max_bytes: int = Field(default=65536, gt=0)
    """UTF-8 bytes of whole texts at most, drawn by hash."""
    context_length: int = Field(default=256, ge=4)
    """Tokens of a text at most; longer texts are left out."""
    bf16: bool = False
    """Whether matrix products run in bfloat16."""


class Marked(Protocol):
    """Settings of a step that reads held-out answers."""

    @property
    def marker(self) -> str: ...

    @property
    def eval_max_bytes(self) -> int: ...


@operations.register("answers", settings=AnswersSettings, tags=("measures",))
def answers_step(settings: AnswersSettings, folder: Path, runner: Runner) -> None:
    """Measure bits per byte of answers, and the share that greedy decoding writes to the last token.

    The artifact holds `answers.json`.
    """
    import warmstart.recipes.sources  # noqa: F401  named sources become known to `resolve`
    from warmstart.checkpoint import resolve
    from warmstart.corpus import open_corpus
    from warmstart.evaluation.answers import answer_scores

    checkpoint, corpus = resolve(settings.source), open_corpus(settings.corpus)
    held = held_out_answers(
        settings, corpus, checkpoint.load_tokenizer(), settings.eval_split, settings.context_length
    )
    found = answer_scores(checkpoint.load_model(), held.rows, held.num_bytes, bf16=settings.bf16)
    with atomic_folder(folder / "output", replace=True) as output:
        (output / "answers.json").write_text(found.model_dump_json(indent=1), encoding="utf-8")


def held_out_answers(
    settings: Marked, corpus: Corpus, tokenizer: Any, split: Split, length: int
) -> AnswerTexts:
    """Held-out texts of up to `eval_max_bytes` bytes in all, drawn by hash; the first one in any case."""
    from warmstart.corpus.answers import answer_texts
    from warmstart.vocabulary.tool_texts import in_order

    left = settings.eval_max_bytes
    drawn: list[Document] = []
    for document in in_order(corpus.documents(split), "held out"):
        left -= document.num_bytes
        if drawn and left < 0:
            break
        drawn.append(document)
    return answer_texts(drawn, tokenizer, length=length, marker=settings.marker)
