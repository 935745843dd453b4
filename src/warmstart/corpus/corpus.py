"""A corpus: documents of a source, divided, limited and fingerprinted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from warmstart.corpus.document import Document
from warmstart.corpus.named_set import dataset_names, is_named, open_named
from warmstart.corpus.reading import suffixes
from warmstart.corpus.settings import CorpusSettings
from warmstart.corpus.source import Source, joined, only, open_files
from warmstart.corpus.splitting import SPLITS, Split, split_of_document
from warmstart.corpus.streams import cut_point, stem_name
from warmstart.foundation.errors import UserError, nearest
from warmstart.foundation.settings import digest

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_READING_VERSION = 1  # part of the fingerprint: bump when the same settings read other documents


class Corpus:
    """A stream of documents in three splits. Nothing is read before it is asked for.

    Args:
        source: Where the documents come from.
        settings: How they are divided and limited.
    """

    def __init__(self, source: Source, settings: CorpusSettings) -> None:
        self.source, self.settings = source, settings
        self.name, self.language = source.name, settings.language or source.language
        self._fingerprint: str | None = None
        self._statistics: dict[str, dict[str, int]] | None = None

    def __repr__(self) -> str:
        return f"Corpus({self.name!r})"

    @property
    def fingerprint(self) -> str:
        """Hash of the content and of every setting that changes which documents are read (16 hex digits)."""
        if self._fingerprint is None:
            chosen = self.settings.model_dump(mode="json", exclude={"path", "also", "language"})
            self._fingerprint = digest([_READING_VERSION, self.source.fingerprint(), chosen])
        return self._fingerprint

    def documents(self, split: Split = "train") -> Iterator[Document]:
        """Stream the documents of a split in reading order; the same order every time.

        Where the source has official splits they are used; an official source without a valid (or test) split
        gets one cut out of its train split by hash. Otherwise every document goes where the hash of its text
        says (see [`split_of`][warmstart.corpus.splitting.split_of]). `all` yields train, valid and test
        documents in reading order.

        Raises:
            UserError: The corpus, or the split, turns out to hold no document.
        """
        if split not in (*SPLITS, "all"):
            raise UserError(f"unknown split {split!r}", where=self.name, fix=nearest(split, (*SPLITS, "all")))
        empty = True
        for _, document in self.divided(split):
            empty = False
            yield document
        if empty:
            self._raise_empty(split)

    def texts(self, split: Split = "train") -> Iterator[str]:
        """The texts of [`documents`][warmstart.corpus.corpus.Corpus.documents]."""
        return (document.text for document in self.documents(split))

    def statistics(self) -> dict[str, dict[str, int]]:
        """`{"train": {"documents": …, "bytes": …}, "valid": …, "test": …}` in one pass, kept afterwards."""
        if self._statistics is None:
            counts = {split: {"documents": 0, "bytes": 0} for split in SPLITS}
            for split, document in self.divided("all"):
                counts[split]["documents"] += 1
                counts[split]["bytes"] += document.num_bytes
            self._statistics = counts
        return {split: dict(count) for split, count in self._statistics.items()}

    def divided(self, wanted: Split = "all") -> Iterator[tuple[str, Document]]:
        """Pairs of split and document, limited per split; reading stops once nothing more can come."""
        open_splits = set(SPLITS) if wanted == "all" else {wanted}
        counts, sizes = dict.fromkeys(SPLITS, 0), dict.fromkeys(SPLITS, 0)
        for split, whole in self._assigned(wanted):
            if split not in open_splits:
                if not open_splits:
                    return
                continue
            for document in self._cut(whole):
                size = document.num_bytes
                most_documents = self.settings.max_documents if split == "train" else None
                train, held_out = self.settings.max_bytes, self.settings.max_held_out_bytes
                most_bytes = train if split == "train" else held_out
                full = most_bytes is not None and counts[split] and sizes[split] + size > most_bytes
                if full or (most_documents is not None and counts[split] >= most_documents):
                    open_splits.discard(split)
                    break
                counts[split] += 1
                sizes[split] += size
                yield split, document
            if not open_splits:
                return

    def _assigned(self, wanted: str) -> Iterator[tuple[str, Document]]:
        chosen = self.settings
        official = self.source.splits
        if not official:
            for document in self.source.read(None):
                fractions = chosen.valid_fraction, chosen.test_fraction
                yield split_of_document(document, chosen.seed, *fractions), document
            return
        # a missing valid or test split is cut out of train; splits that exist are left as they are
        valid = 0.0 if "valid" in official else chosen.valid_fraction
        test = 0.0 if "test" in official else chosen.test_fraction
        cut_out = {"train"} | ({"valid"} if valid else set()) | ({"test"} if test else set())
        for name in official:
            if name == "train" and wanted not in (*cut_out, "all"):
                continue
            if name != "train" and wanted not in (name, "all"):
                continue
            for document in self.source.read(name):
                if name == "train":
                    yield split_of_document(document, chosen.seed, valid, test), document
                else:
                    yield name, document

    def _cut(self, document: Document) -> Iterator[Document]:
        limit = self.settings.max_document_characters
        if len(document.text) <= limit:
            yield document
            return
        rest, part = document.text, 1
        while rest:
            cut = len(rest) if len(rest) <= limit else cut_point(rest, limit)
            if rest[:cut].strip():
                name = document.id if part == 1 else f"{document.id}#{part}"
                yield Document(rest[:cut], name, document.metadata, document.key or document.text)
            rest, part = rest[cut:], part + 1

    def _raise_empty(self, split: str) -> None:
        if not any(True for _ in self.source.read(None)):
            raise UserError("the corpus holds no text", where=self.name, fix="give files with text in them")
        fractions = {"valid": self.settings.valid_fraction, "test": self.settings.test_fraction}
        if fractions.get(split, 1) == 0:
            fix = f"set {split}_fraction above 0"
        else:
            fix = f"it has too few documents: set unit: line, raise {split}_fraction, or give more text"
        raise UserError(f"the {split} split holds no document", where=self.name, fix=fix)


def open_corpus(settings: CorpusSettings | Mapping[str, Any] | str | Path, *, where: object = None) -> Corpus:
    """Open what `settings.path` names: a file or folder, a named set, or a Hugging Face dataset.

    What exists on disk wins over a named set, and that over a hub id. `hf:` in front forces the hub library
    (also for a local folder in its layout).

    Args:
        settings: Settings, a table of them, or just the path.
        where: Place to name in errors about the settings.

    Raises:
        UserError: Nothing of that name exists, with the nearest name that does.
    """
    chosen = CorpusSettings.parse(settings, where=where)
    sources = [_source(text, chosen, where) for text in (chosen.path, *chosen.also)]
    return Corpus(sources[0] if len(sources) == 1 else joined(sources), chosen)


def _source(text: str, chosen: CorpusSettings, where: object) -> Source:
    """What one path names."""
    if text.startswith("hf:"):
        return _hub(text.removeprefix("hf:"), chosen)
    path = Path(text).expanduser()
    source = None
    if text and path.exists():
        source = open_files(path, chosen)
    elif is_named(text):
        source = open_named(text, chosen)
    if source is not None:
        return source if chosen.split is None else only(source, chosen.split)
    like_file = Path(stem_name(path)).suffix.lower() in suffixes()
    if _HUB_ID.fullmatch(text) and not like_file and not path.parent.is_dir():
        return _hub(text, chosen)
    raise missing_path(text, where)


def missing_path(text: str, where: object = None) -> UserError:
    """The error for a path that leads nowhere, naming the nearest file beside it or named set."""
    path = Path(text).expanduser()
    parent = path.parent
    while not parent.is_dir() and parent != parent.parent:
        parent = parent.parent
    beside = [str(parent / child.name) for child in parent.iterdir()] if parent.is_dir() else []
    options = [*beside, *dataset_names()]
    hint = nearest(str(path), options) if options else ""
    if not hint.startswith("did you mean"):
        hint = "give a file, a folder, a Hugging Face dataset as owner/name, or a named set: " + ", ".join(
            sorted({name.split("/")[0] for name in dataset_names()})
        )
    return UserError(f"there is no file, folder or named set {text!r}", where=where, fix=hint)


def _hub(name: str, settings: CorpusSettings) -> Source:
    from warmstart.corpus.hub import open_hub

    return open_hub(name, settings)
