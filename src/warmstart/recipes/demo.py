"""The demonstration: the main job on text that every machine has, or on the user's own source and text."""

from __future__ import annotations

import time
from pathlib import Path

from warmstart.evaluation.results import ComparisonResult
from warmstart.foundation.settings import Settings
from warmstart.recipes.runner import run_folder, run_recipe
from warmstart.recipes.schema import Recipe, load_recipe

RECIPE = Path(__file__).parent / "demo.yaml"


class DemoSettings(Settings):
    """Warm-start a model for new text and compare with training from scratch."""

    source: str = "tiny-en"
    """Checkpoint to start from: folder, hub id or named source."""
    corpus: str = "python-stdlib/code"
    """Text that the new model is for: file, folder, hub id or named data set."""
    vocab_size: int = 4096
    """Tokens of the new tokenizer."""
    max_tokens: int = 200_000
    """Training tokens of each arm."""
    output_dir: str = "runs"
    """Folder in which the run folder is made."""


def demo_recipe(settings: DemoSettings) -> Recipe:
    """The demo's recipe with the user's source, text and budget in place."""
    recipe = load_recipe(RECIPE)
    steps = {name: dict(step) for name, step in recipe.steps.items()}
    steps["tokenizer"] |= {
        "like": settings.source,
        "corpus": settings.corpus,
        "vocab_size": settings.vocab_size,
    }
    compare = steps["compare"]
    compare |= {"corpus": settings.corpus, "train": compare["train"] | {"max_tokens": settings.max_tokens}}
    if settings.source != DemoSettings().source or settings.corpus != DemoSettings().corpus:
        compare["title"] = f"{settings.source} learns {settings.corpus}, with a new tokenizer"
    for arm in compare["arms"].values():
        start = arm["start"]
        start["like" if start["type"] == "initialise" else "source"] = settings.source
        if "corpus" in start:
            start["corpus"] = settings.corpus
    return Recipe.parse(recipe.model_dump() | {"steps": steps}, where=RECIPE.name)


def run_demo(settings: DemoSettings) -> tuple[ComparisonResult, Path, float]:
    """Run the demo; returns the result, the run folder and the seconds it took."""
    started = time.perf_counter()
    recipe = demo_recipe(settings)
    folder = run_folder(recipe, Path(settings.output_dir))
    run_recipe(recipe, folder)
    result = ComparisonResult.model_validate_json((folder / "result.json").read_text())
    return result, folder, time.perf_counter() - started
