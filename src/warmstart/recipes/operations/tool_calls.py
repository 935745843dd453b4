"""Step type `tool-calls`: are tools called where they belong?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import Field

from warmstart.corpus.settings import CorpusSettings
from warmstart.foundation.files import atomic_folder
from warmstart.foundation.settings import Settings
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner


class ToolCallsSettings(Settings):
    """Calls of tools in held-out text: F1, precision, recall and accuracy."""

    source: str = Field(min_length=1)
    """Checkpoint with tools, trained or not: folder, hub id or `${step}`."""
    corpus: CorpusSettings
    """Texts with calls. Tools without a call in the `train` part count as never trained; the constant is
    chosen on `valid`, `test` is reported."""
    constants: list[float] = []
    """Values that may be added to the logits of tools; all that make a difference when empty."""
    max_texts: int = Field(default=2000, ge=1)
    """Texts of each part at most, drawn by hash."""
    context_length: int = Field(default=64, ge=4)
    """Most tokens of a text; what is behind them is not read."""
    bf16: bool = False
    """Whether matrix products run in bfloat16."""


@operations.register("tool-calls", settings=ToolCallsSettings, tags=("measures",))
def tool_calls_step(settings: ToolCallsSettings, folder: Path, runner: Runner) -> None:
    """Measure calls of tools in held-out text; the artifact holds `tool-calls.json`."""
    import warmstart.recipes.sources  # noqa: F401  named sources become known to `resolve`
    from warmstart.checkpoint import resolve
    from warmstart.corpus.calls import open_calls, tools_in
    from warmstart.corpus.splitting import Split
    from warmstart.evaluation.tool_calls import Decisions, decisions, tool_call_scores
    from warmstart.vocabulary.tool_texts import in_order, tool_texts
    from warmstart.vocabulary.tools import read_tools

    source = resolve(settings.source)
    tools = read_tools(source.path)
    model, tokenizer = source.load_model(), source.load_tokenizer()
    corpus = open_calls(settings.corpus)
    called = tools_in(corpus, "train")

    def decided(part: Split) -> Decisions:
        drawn = in_order(corpus.documents(part), "measured")[: settings.max_texts]
        texts = tool_texts(drawn, tokenizer, tools, length=settings.context_length)
        return decisions(model, texts.rows, list(tools.values()), bf16=settings.bf16)

    trained = np.array([name in called for name in tools], dtype=bool)
    scores = tool_call_scores(decided("valid"), decided("test"), trained, settings.constants)
    with atomic_folder(folder / "output", replace=True) as output:
        (output / "tool-calls.json").write_text(scores.model_dump_json(indent=1), encoding="utf-8")
