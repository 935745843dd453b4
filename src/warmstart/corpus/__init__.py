"""What to learn from: documents from files, hubs and named sets, split, fingerprinted and packed into blocks.

`open_corpus` gives a stream of [`Document`][warmstart.corpus.document.Document]s, `open_pairs` parallel
sentences or a dictionary, `pack` the memory-mapped token blocks that training reads, `describe` the report
behind `warmstart data`. Importing this package loads none of the heavy libraries.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from warmstart.corpus.corpus import Corpus, open_corpus
    from warmstart.corpus.describing import describe
    from warmstart.corpus.document import Document
    from warmstart.corpus.named_set import NamedSet, datasets
    from warmstart.corpus.packed import Packed
    from warmstart.corpus.packing import pack
    from warmstart.corpus.pairs import Pairs, open_pairs
    from warmstart.corpus.reading import readers
    from warmstart.corpus.settings import CorpusSettings

_HOME = {
    "Corpus": "corpus",
    "CorpusSettings": "settings",
    "Document": "document",
    "NamedSet": "named_set",
    "Packed": "packed",
    "Pairs": "pairs",
    "datasets": "named_set",
    "describe": "describing",
    "open_corpus": "corpus",
    "open_pairs": "pairs",
    "pack": "packing",
    "readers": "reading",
}

__all__ = [
    "Corpus",
    "CorpusSettings",
    "Document",
    "NamedSet",
    "Packed",
    "Pairs",
    "datasets",
    "describe",
    "open_corpus",
    "open_pairs",
    "pack",
    "readers",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
