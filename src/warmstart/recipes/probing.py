"""Probes of a checkpoint's input rows: labelled examples, cut into tokens, and the bits of their labels."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict

from warmstart.foundation.errors import UserError

if TYPE_CHECKING:
    from warmstart.corpus.labelled import Labelled
    from warmstart.recipes.operations.mdl_probe import MdlProbeSettings

PYTHON_TOKENS = "python-tokens"


class RowProbe(BaseModel):
    """Bits that the labels of some examples cost."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    examples: int
    """Examples whose labels are sent."""
    classes: int
    """Different labels."""
    uniform_bits: float
    """All labels equally likely."""
    frequency_bits: float
    """Labels as likely as they were frequent before."""
    frozen_bits: float
    """Online code, the rows as they are."""
    tuned_bits: float
    """Online code, the rows learned along."""
    frozen_compression: float
    """`uniform_bits / frozen_bits`."""
    tuned_compression: float
    """`uniform_bits / tuned_bits`."""


def probe_rows(settings: MdlProbeSettings) -> RowProbe:
    """Probe the input rows of a checkpoint.

    Raises:
        UserError: No such labelled texts, or fewer than two labels among the drawn examples.
    """
    import warmstart.recipes.sources  # noqa: F401  named sources become known to `resolve`
    from warmstart.checkpoint import resolve
    from warmstart.evaluation.mdl import frequency_bits, online_code, uniform_bits
    from warmstart.evaluation.probe import BagProbe
    from warmstart.evaluation.probe_settings import ProbeSettings
    from warmstart.vocabulary.factorised_model import input_rows

    checkpoint = resolve(settings.source)
    drawn = examples(settings.labels, settings.unit, settings.max_examples, settings.seed)
    names = sorted(set(drawn.labels))
    if len(names) < 2:
        raise UserError(
            f"the examples have {len(names)} label(s), and telling apart needs two", where=settings.labels
        )
    labels = np.array([names.index(label) for label in drawn.labels])
    tokenizer = checkpoint.load_tokenizer()
    cut = tokenizer(drawn.texts, add_special_tokens=False, return_attention_mask=False, verbose=False)
    # an example that the tokenizer cannot write has no vector: the unknown token stands for it
    nothing = tokenizer.unk_token_id if tokenizer.unk_token_id is not None else tokenizer.pad_token_id
    bags = [ids[: settings.max_pieces] or [int(nothing or 0)] for ids in cut["input_ids"]]
    rows = input_rows(checkpoint.load_model())
    options = ProbeSettings.model_validate({k: getattr(settings, k) for k in ProbeSettings.model_fields})
    found: dict[str, float] = {}
    for name, tuned in (("frozen", False), ("tuned", True)):
        probe = BagProbe(rows, bags, labels, len(names), options, tuned=tuned)
        code = online_code(labels, len(names), probe.learn)
        found |= {f"{name}_bits": code.bits, f"{name}_compression": code.compression}
    return RowProbe(
        examples=len(labels),
        classes=len(names),
        uniform_bits=uniform_bits(len(labels), len(names)),
        frequency_bits=frequency_bits(labels, len(names)),
        **found,
    )


@lru_cache(maxsize=16)
def examples(name: str, unit: str, count: int, seed: int) -> Labelled:
    """At most `count` labelled examples in random order, the same ones for a seed."""
    from warmstart.corpus.labelled import Labelled, labelled
    from warmstart.corpus.probing import python_tokens, words_of

    if name == PYTHON_TOKENS and unit == "words":
        raise UserError("Python tokens have their kind one by one", where=name, fix="leave `unit` out")
    given = python_tokens() if name == PYTHON_TOKENS else labelled(name, "all")
    if unit == "words":
        given = words_of(given)
    order = np.random.default_rng(seed).permutation(len(given.texts))[:count].tolist()
    return Labelled([given.texts[i] for i in order], [given.labels[i] for i in order])
