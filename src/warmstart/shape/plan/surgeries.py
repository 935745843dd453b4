"""Which surgeries lead from a source to the target, and what each is said or was measured to save."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from math import log
from typing import Literal

import yaml
from pydantic import Field

from warmstart.anatomy import Anatomy
from warmstart.anatomy.expressions import evaluate
from warmstart.foundation.errors import UserError, nearest
from warmstart.foundation.settings import Settings

Relation = Literal["same", "smaller", "larger", "mixed", "foreign"]
Basis = Literal["measured", "published", "none"]
SMALLEST_TEACHER = 0.25
"""A teacher of a smaller share of the target's size gave little (SALT: 0.5B for 2.8B)."""


class Published(Settings):
    """One number of a paper."""

    saved: float = Field(ge=0, lt=1)
    """Share of the cost of training from scratch that was saved."""
    axis: Literal["tokens", "steps", "flops", "seconds"]
    """What was counted."""
    of: str
    """Which models it was found on."""
    task: str | None = None
    """Task of those models, where it matters."""
    tokens: float | None = None
    """Training tokens at which it holds, where that matters."""


class Surgery(Settings):
    """One way from an existing model to the target."""

    does: str
    """What happens to the weights."""
    title: str = ""
    """Paper."""
    arxiv: str = ""
    """arXiv identifier."""
    system: int | None = None
    """Number in the catalogue."""
    source: Literal["same", "smaller", "larger", "teacher", "smaller-teacher", "dense"]
    """How the source must compare with the target."""
    change: Literal["any", "depth"] = "any"
    """What may differ: `depth` where widths must be equal."""
    published: list[Published] = Field(default_factory=list)
    """Numbers of papers."""

    def prior(self, task: str, tokens: float) -> Published | None:
        """The published number for `task` whose token budget is nearest."""
        fitting = [p for p in self.published if p.task in (None, task)]
        return min(
            fitting, key=lambda p: 0.0 if p.tokens is None else abs(log(p.tokens / tokens)), default=None
        )


@cache
def surgeries() -> Mapping[str, Surgery]:
    """Every surgery by name."""
    text = resources.files(__package__).joinpath("surgeries.yaml").read_text(encoding="utf-8")
    return {name: Surgery.parse(row, where=name) for name, row in yaml.safe_load(text).items()}


@dataclass(frozen=True)
class Route:
    """One way to the target from one source.

    Attributes:
        source: Name of the source.
        surgery: Name of the surgery.
        does: What happens to the weights.
        share: Operations as a share of training the target from scratch; None where no number is known.
        flops: Those operations.
        basis: Where the number comes from.
        evidence: Paper and models, or who measured.
    """

    source: str
    surgery: str
    does: str
    share: float | None
    flops: float | None
    basis: Basis
    evidence: str


def relation(source: Anatomy, target: Anatomy) -> tuple[Relation, Relation]:
    """How the widths and the depths of a source compare with the target's.

    Widths are the hidden size and every axis inside the blocks; the vocabulary, positions and the like are
    changed otherwise. A source of another family is `foreign`.
    """
    if source.family != target.family or list(source.layers) != list(target.layers):
        return "foreign", "foreign"
    mine, theirs = _widths(source), _widths(target)
    widths = _compare([(mine.get(x, 0), theirs.get(x, 0)) for x in {**mine, **theirs}])
    return widths, _compare([(source.layers[s], target.layers[s]) for s in target.layers])


def _widths(anatomy: Anatomy) -> dict[str, int]:
    """Hidden size, heads, and every axis inside the blocks; query heads per group follow from heads."""
    letters = [x for x in anatomy.sizes if x == "H" or anatomy.table.axes[x].scope != "global"]
    found = {x: anatomy.sizes[x] for x in letters if x != "r"}
    heads = [int(evaluate(each.heads, anatomy.sizes)) for each in anatomy.table.attention]
    return found | {f"heads {number}": count for number, count in enumerate(heads)}


def is_dense_form(source: Anatomy, target: Anatomy) -> bool:
    """Whether experts of the target can be copies, or equal parts, of the source's feed-forward layers."""
    if "X" not in target.sizes or "X" in source.sizes or list(source.layers) != list(target.layers):
        return False
    same = all(source.sizes.get(x) == target.sizes.get(x) for x in ("H", "h", "g", "r", "e"))
    return same and source.layers == target.layers and source.sizes["F"] % target.sizes["F"] == 0


def _compare(pairs: list[tuple[int, int]]) -> Relation:
    below, above = any(a < b for a, b in pairs), any(a > b for a, b in pairs)
    if below and above:
        return "mixed"
    return "smaller" if below else "larger" if above else "same"


def _applies(surgery: Surgery, source: Anatomy, target: Anatomy) -> bool:
    widths, depths = relation(source, target)
    if surgery.change == "depth" and widths != "same":
        return False
    if surgery.source == "dense":
        return is_dense_form(source, target)
    pair, ratio = {widths, depths} - {"same"}, _size(source) / _size(target)
    same_tokens = source.sizes.get("V") == target.sizes.get("V") and source.task == target.task
    if surgery.source == "teacher":
        return same_tokens and bool(pair) and ratio > 1
    if surgery.source == "smaller-teacher":
        return same_tokens and target.task == "causal" and SMALLEST_TEACHER <= ratio < 1
    if surgery.source == "smaller" and target.table.axes["e"].order == "fixed":
        # rotary frequencies depend on the size of a head, so heads are added, not widened
        return pair == {"smaller"} and source.sizes["e"] == target.sizes["e"]
    return pair == (set() if surgery.source == "same" else {surgery.source})


def _size(anatomy: Anatomy) -> int:
    return anatomy.parameters().non_embedding


def routes(
    target: Anatomy,
    sources: Mapping[str, Anatomy],
    *,
    tokens: float,
    operations_per_token: float,
    measured: Mapping[str, float] | None = None,
) -> list[Route]:
    """Every surgery that applies to each source: training on first, then the cheapest, unknown ones last.

    `flops = (1 - saved) * tokens * operations_per_token`. Savings in steps, tokens or seconds are taken for
    savings in operations, which they are at equal batches on equal machines; what a teacher costs is in
    those published in seconds or operations. The source's own training is not counted: it exists.

    Args:
        target: The model that is wanted.
        sources: Models that exist, by name.
        tokens: Tokens that training the target from scratch would take.
        operations_per_token: Of training the target.
        measured: Surgery to cost as a share of training from scratch; wins over published numbers.

    Raises:
        UserError: `measured` names no surgery.
    """
    table, shares = surgeries(), dict(measured or {})
    for name in shares:
        if name not in table:
            raise UserError(f"unknown surgery {name!r}", where="measured", fix=nearest(name, table))
    found: list[Route] = []
    for label, source in sources.items():
        for name, surgery in table.items():
            if not _applies(surgery, source, target):
                continue
            share, basis, evidence = _saving(surgery, target.task, tokens)
            if name in shares:
                share, basis, evidence = shares[name], "measured", "measured here"
            flops = None if share is None else share * operations_per_token * tokens
            found.append(Route(label, name, surgery.does, share, flops, basis, evidence))
    return sorted(found, key=lambda r: (r.surgery != "continue", r.share is None, r.share or 0.0, r.source))


def _saving(surgery: Surgery, task: str, tokens: float) -> tuple[float | None, Basis, str]:
    cited = f"{surgery.title} (arXiv {surgery.arxiv})" if surgery.title else ""
    prior = surgery.prior(task, tokens)
    if prior is None:
        return None, "none", cited
    return 1 - prior.saved, "published", f"{cited}: {prior.of}"
