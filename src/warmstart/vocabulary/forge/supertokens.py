"""Supertokens: byte-pair merges that may reach over word boundaries, learned from randomly cut text.

After Sharthak et al., "Achieving Tokenizer Flexibility in Language Models through Heuristic Adaptation and
Supertoken Learning" (arXiv 2505.09738): the text is cut at random into chunks of 4 to 23 characters, most
often of 12 or 13, and byte-level BPE sees nothing but these cuts. Different cuts of the same phrase leave
whole words and word groups uncut often enough to be merged, while no merge grows without bound.

Differences from the released scripts: there the chunks are joined by a separator string, here each is
handed over by itself, so that no text can contain the separator; there the weights of the lengths sum to
1.1, which their own check refuses, here they are relative; there the longest token has one byte less than
`max_token_length`, a bound that the library's trainer does not reach; there nothing is split when the
tokenizer is used, so that BPE runs over whole documents, here text is split behind line breaks, in training
as well, so that no token that reaches over one is learned and then never used.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.settings import TokenizerSettings
from warmstart.vocabulary.tokens import Style

SHORTEST = 4
BIN = 2  # lengths that share a weight
HELD = 90  # bytes of memory that the trainer takes per byte of text, measured: chunks hardly ever repeat


def newline_splitter(kind: str, style: Style) -> dict[str, Any]:
    """The pre-tokeniser of a supertoken tokenizer: lines with their line break, as bytes.

    Raises:
        UserError: The tokenizer is not a byte-level BPE.
    """
    if kind != "bpe" or style != "bytes":
        raise UserError(
            f"supertokens need a byte-level bpe tokenizer, this one is {kind} ({style})",
            where="supertokens",
            fix="remove `like`, or choose kind: bpe",
        )
    lines = {
        "type": "Split",
        "pattern": {"String": "\n"},
        "behavior": "MergedWithPrevious",
        "invert": False,
    }
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [lines, level]}


def chunks(texts: Iterable[str], settings: TokenizerSettings) -> Iterator[str]:
    """Each text cut at random; the same texts in the same order are cut the same way.

    The length of a chunk is drawn from `chunk_weights`: entry k is the weight of the lengths 4 + 2k and
    5 + 2k, which are equally likely. A chunk also ends behind a line break and with its text.

    Raises:
        UserError: When the trainer would need more memory than there is.
    """
    import psutil

    rng = np.random.default_rng(settings.seed)
    weights = np.array(settings.chunk_weights) / sum(settings.chunk_weights)
    available, seen = psutil.virtual_memory().available, 0
    for text in texts:
        seen += len(text.encode("utf-8", "replace"))
        if seen * HELD > available:
            raise UserError(
                f"supertokens from more than {seen / 1e6:,.0f} MB of text need over "
                f"{available / 2**30:.1f} GiB of memory, which is all that is free",
                where="supertokens",
                fix="set corpus.max_bytes to less",
            )
        yield from cut(text, weights, rng)


def cut(text: str, weights: np.ndarray, rng: np.random.Generator) -> list[str]:
    """One text in chunks; joined they are the text."""
    most = len(text) // SHORTEST + 1
    lengths = (
        SHORTEST + BIN * rng.choice(len(weights), size=most, p=weights) + rng.integers(0, BIN, size=most)
    )
    ends = np.cumsum(lengths)
    breaks = [index + 1 for index, character in enumerate(text) if character == "\n"]
    bounds = sorted({0, len(text), *breaks, *ends[ends < len(text)].tolist()})
    return [text[start:stop] for start, stop in itertools.pairwise(bounds)]
