"""Which split a document falls in: decided by its text alone, so no text is ever in two splits."""

from __future__ import annotations

import hashlib
from typing import Literal

from warmstart.corpus.document import Document

Split = Literal["train", "valid", "test", "all"]

SPLITS = ("train", "valid", "test")

ALIASES = {"validation": "valid", "dev": "valid", "val": "valid"}
"""Other names in common use for the valid split, as file names and as Hugging Face splits."""


def split_of(text: str, *, seed: int, valid_fraction: float, test_fraction: float) -> str:
    """The split of a text: a hash of the seed and the text, read as a number in [0, 1).

    Runs of white space count as one space, so that re-wrapped or trimmed copies of a text stay together with
    it. Neither the order nor the number of documents matters, and a larger `valid_fraction` only adds
    documents to the valid split. Test takes the numbers below `test_fraction`, valid the highest ones, train
    what lies between.

    Args:
        text: Text of a document, or the shared key of parts of one.
        seed: Different seeds give independent divisions.
        valid_fraction: Expected share of the documents in `valid`.
        test_fraction: Expected share of the documents in `test`.
    """
    plain = " ".join(text.split())
    value = hashlib.blake2b(f"{seed}\n{plain}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    place = int.from_bytes(value, "big") / 2**64
    if place < test_fraction:
        return "test"
    return "valid" if place >= 1 - valid_fraction else "train"


def split_of_document(document: Document, seed: int, valid_fraction: float, test_fraction: float) -> str:
    """[`split_of`][warmstart.corpus.splitting.split_of] a document, by its `key` where it has one."""
    return split_of(
        document.key or document.text, seed=seed, valid_fraction=valid_fraction, test_fraction=test_fraction
    )
