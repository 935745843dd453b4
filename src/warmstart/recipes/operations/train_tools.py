"""Step type `train-tools`: train the output rows of tools on a frozen model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from warmstart.corpus.settings import CorpusSettings
from warmstart.foundation.errors import UserError
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner
from warmstart.recipes.training_step import RowTrainingStep, leave
from warmstart.training.settings import TrainSettings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from warmstart.corpus import Document
    from warmstart.vocabulary.tool_texts import ToolTexts


class TrainToolsSettings(RowTrainingStep):
    """Train the output rows of tools on texts with calls; all else of the model stays bit for bit."""

    unbudgeted_epochs = 10.0
    source: str = Field(min_length=1)
    """Checkpoint with tools, from a step of type `add-tools`: folder, hub id or `${step}`."""
    corpus: CorpusSettings
    """Texts with calls: a named set such as `tool-calls`, or .jsonl files with one
    `{"text": …, "calls": [[start, stop, tool], …]}` per line, places in characters."""
    examples: int | None = Field(default=None, ge=1)
    """Calls of each tool to learn from, at most; which ones depends on the seed."""
    objective: str | dict[str, Any] = "tool-rows"
    """`tool-rows`, with its own settings in a table: `{name: tool-rows, penalty: 0}`."""
    trainable: Literal["all", "embeddings", "2x2ls"] | list[str] | dict[str, float] = "embeddings"
    """Only the rows of tools that are called learn, whatever is said here."""
    block_size: int = Field(default=64, ge=4)
    """Most tokens of a text; what is behind them is not read."""
    per_device_train_batch_size: int = Field(default=16, ge=1)
    """Texts per process and forward pass; the source has 1."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate."""

    def loop(self) -> TrainSettings:
        """What the training loop is told.

        Raises:
            UserError: Another objective, which would train rows that no text contains.
        """
        name = self.objective if isinstance(self.objective, str) else self.objective.get("name")
        if name != "tool-rows":
            raise UserError(
                f"tools are trained with the objective tool-rows, not {name!r}",
                where="train-tools",
                fix="set objective: tool-rows",
            )
        return super().loop().model_copy(update={"trainable": "embeddings"})


@operations.register("train-tools", settings=TrainToolsSettings, tags=("trains",))
def train_tools_step(settings: TrainToolsSettings, folder: Path, runner: Runner) -> None:
    """Train the output rows of tools only; the artifact holds the model and `training.json`, its curve.

    The points of the curve are bits per call, `-log2 p(tool | text before the call)` on held-out text, of the
    tools that are trained: those with a call in the text. The rows of others stay as they are.
    """
    import warmstart.recipes.sources  # noqa: F401  named sources become known to `resolve`
    from warmstart.checkpoint import resolve
    from warmstart.corpus.calls import open_calls
    from warmstart.evaluation.tool_calls import bits_per_call
    from warmstart.training import train
    from warmstart.training.loop import make_objective
    from warmstart.vocabulary.tool_texts import in_order, tool_texts
    from warmstart.vocabulary.tools import read_tools, write_tools

    source = resolve(settings.source)
    tools = read_tools(source.path)
    model, tokenizer = source.load_model(), source.load_tokenizer()
    corpus = open_calls(settings.corpus)
    plain = settings.loop()
    objective = make_objective(model, tokenizer, plain, tools=list(tools.values()))
    drawn = in_order(corpus.documents("train"), settings.seed)
    texts = tool_texts(drawn, tokenizer, tools, length=settings.block_size, examples=settings.examples)
    names = np.array(list(tools))
    counts = texts.counts(tools.values())
    learning = set(names[counts > 0].tolist())
    rows = np.array([tools[name] for name in sorted(learning)])
    held_out = held_out_texts(
        corpus.documents(settings.eval_split),
        settings.eval_max_bytes,
        tokenizer=tokenizer,
        tools=tools,
        length=settings.block_size,
        only=learning,
    )
    outcome = train(
        model,
        tokenizer,
        texts,
        plain,
        folder / "run",
        evaluate=lambda trained: bits_per_call(trained, held_out.rows, rows.tolist()),
        rows=rows,
        objective=objective,
    )
    measured = {
        "tools": len(tools),
        "tools trained": len(rows),
        "calls learned from": int(counts.sum()),
        "texts": len(texts),
    }
    leave(
        folder,
        "train-tools",
        settings,
        (model, tokenizer),
        outcome,
        parents=[source],
        data={corpus.name: corpus.fingerprint},
        measured=measured,
        points="bits per call",
        also=lambda output: write_tools(output, tools),
    )


def held_out_texts(documents: Iterable[Document], max_bytes: int, **options: Any) -> ToolTexts:
    """Texts of up to `max_bytes` bytes in all, drawn by hash so that they come from all of `documents`.

    Args:
        documents: Held-out texts with calls.
        max_bytes: The first text is taken in any case.
        **options: For [`tool_texts`][warmstart.vocabulary.tool_texts.tool_texts].
    """
    from warmstart.vocabulary.tool_texts import in_order, tool_texts

    drawn: list[Document] = []
    left = max_bytes
    for document in in_order(documents, "held out"):
        left -= document.num_bytes
        if drawn and left < 0:
            break
        drawn.append(document)
    return tool_texts(drawn, **options)
