"""What a corpus looks like: the numbers and samples behind `warmstart data PATH`."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from typing import Any

from warmstart.corpus.corpus import Corpus
from warmstart.corpus.splitting import SPLITS
from warmstart.foundation.progress import progress

SCRIPT_CHARACTERS = 5_000_000
"""Characters whose script is looked up; more would change no percentage that a person reads."""


def describe(corpus: Corpus, *, samples: int = 5, sample_characters: int = 200) -> dict[str, Any]:
    """Read the whole corpus once and report on it.

    Args:
        corpus: What to look at.
        samples: How many documents to show: those whose text hashes lowest, so the choice is random, the same
            every time, and needs no memory of the rest.
        sample_characters: Where to cut a sample.

    Returns:
        JSON-serialisable: `name`, `language`, `fingerprint`, `official_splits`, `documents`, `bytes`,
        `characters`, `bytes_per_character`, `splits` (name to `documents`, `bytes`), `mean_characters`,
        `longest_characters`, `duplicates` (share of documents whose text, white space aside, came before),
        `scripts` (share of letters by Unicode script of the first five million characters, commonest first),
        `samples` (list of `id`, `split`, `text`). Duplicates take 8 bytes of memory per document.
    """
    splits = {split: {"documents": 0, "bytes": 0} for split in SPLITS}
    letters: Counter[str] = Counter()
    seen: set[int] = set()
    characters, looked_at, duplicates, longest = 0, 0, 0, 0
    chosen: list[tuple[int, dict[str, str]]] = []
    with progress(f"Reading {corpus.name}", max(corpus.source.num_bytes, 1)) as task:
        for split, document in corpus.divided():
            text, size = document.text, document.num_bytes
            splits[split]["documents"] += 1
            splits[split]["bytes"] += size
            characters += len(text)
            longest = max(longest, len(text))
            if looked_at < SCRIPT_CHARACTERS:
                looked_at += len(text)
                letters.update(text)
            mark = _mark(text)
            duplicates += mark in seen
            if mark not in seen:
                seen.add(mark)
                if len(chosen) < samples or (chosen and mark < chosen[-1][0]):
                    shown = " ".join(text[: 2 * sample_characters].split())
                    cut = shown[:sample_characters] + ("…" if len(shown) > sample_characters else "")
                    chosen = sorted([*chosen, (mark, {"id": document.id, "split": split, "text": cut})])[
                        :samples
                    ]
            done = sum(count["bytes"] for count in splits.values())
            task.update(min(done, corpus.source.num_bytes), f"{done / 1e6:.1f} MB")
    documents = sum(count["documents"] for count in splits.values())
    if not documents:
        next(corpus.documents("all"))  # raises, with the reason
    size = sum(count["bytes"] for count in splits.values())
    return {
        "name": corpus.name,
        "language": corpus.language,
        "fingerprint": corpus.fingerprint,
        "official_splits": list(corpus.source.splits),
        "documents": documents,
        "bytes": size,
        "characters": characters,
        "bytes_per_character": size / characters,
        "splits": splits,
        "mean_characters": characters / documents,
        "longest_characters": longest,
        "duplicates": duplicates / documents,
        "scripts": _scripts(letters),
        "samples": [sample for _, sample in chosen],
    }


def _mark(text: str) -> int:
    plain = " ".join(text.split()).encode()
    return int.from_bytes(hashlib.blake2b(plain, digest_size=8).digest(), "big")


def _scripts(characters: Counter[str]) -> dict[str, float]:
    """Share of letters per script. The script is the first word of the Unicode name (LATIN, CJK …)."""
    counts: Counter[str] = Counter()
    for character, count in characters.items():
        if character.isalpha():
            counts[unicodedata.name(character, "UNKNOWN").split()[0].split("-")[0].capitalize()] += count
    total = sum(counts.values())
    return {script: count / total for script, count in counts.most_common()}
