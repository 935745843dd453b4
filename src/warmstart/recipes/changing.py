"""What steps share that change a loaded model without text, and leave it as a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def change_model(
    operation: str, settings: Any, folder: Path, change: Callable[[PreTrainedModel, Path], Mapping[str, Any]]
) -> None:
    """Load a step's source, change the model in place, and leave it in `folder/output`, verified.

    Args:
        operation: Name of the step type, for the lineage.
        settings: Of the step; they have `source`, and `seed` and `trust_remote_code` where these matter.
        folder: The step's folder.
        change: `change(model, path)`, path that of the source for messages; returns numbers for the lineage.
    """
    import warmstart.recipes.sources  # noqa: F401  named sources become known to `resolve`
    from warmstart.checkpoint import Lineage, resolve, save_checkpoint

    source = resolve(settings.source, trust_remote_code=getattr(settings, "trust_remote_code", False))
    model, tokenizer = source.load_model(dtype="auto"), source.load_tokenizer()
    measured = dict(change(model, source.path))
    seeds = {"seed": settings.seed} if hasattr(settings, "seed") else {}
    lineage = Lineage.of(operation, settings, parents=[source], seeds=seeds, measured=measured)
    save_checkpoint(folder / "output", model, tokenizer, lineage=lineage, replace=True, verify=True)


def counted(model: PreTrainedModel) -> dict[str, int]:
    """How many parameters a model has."""
    return {"parameters": sum(parameter.numel() for parameter in model.parameters())}
