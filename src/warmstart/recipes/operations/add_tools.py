"""Step type `add-tools`: give a causal model one output row for each tool."""

from __future__ import annotations

from pathlib import Path

from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner
from warmstart.vocabulary.tools import AddToolsSettings


@operations.register(
    "add-tools",
    settings=AddToolsSettings,
    title="Re-Initialization Token Learning for Tool-Augmented Large Language Models",
    arxiv="2506.14248",
)
def add_tools_step(settings: AddToolsSettings, folder: Path, runner: Runner) -> None:
    """Add a token and an output row for each tool; the artifact is a checkpoint with `tools.json`."""
    import warmstart.recipes.sources  # noqa: F401  named sources become known to `resolve`
    from warmstart.vocabulary.tools import add_tools

    add_tools(settings, folder / "output", replace=True)
