"""Where models come from and go to: sources, safe loading and saving, lineage, model cards."""

from __future__ import annotations

from warmstart.checkpoint.handle import Checkpoint
from warmstart.checkpoint.lineage import Lineage, Parent
from warmstart.checkpoint.save import save_checkpoint
from warmstart.checkpoint.sources import register_source_resolver, resolve
from warmstart.checkpoint.summary import inspect

__all__ = [
    "Checkpoint",
    "Lineage",
    "Parent",
    "inspect",
    "register_source_resolver",
    "resolve",
    "save_checkpoint",
]
