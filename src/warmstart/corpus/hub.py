"""Hugging Face datasets by id, streamed where the network is there and from the cache where it is not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from warmstart.corpus.document import Document
from warmstart.corpus.download import offline
from warmstart.corpus.fields import document_of, missing_field
from warmstart.corpus.settings import CorpusSettings
from warmstart.corpus.source import Source
from warmstart.corpus.splitting import ALIASES, SPLITS
from warmstart.foundation.errors import MissingExtra, UserError, nearest
from warmstart.foundation.settings import digest


def open_hub(name: str, settings: CorpusSettings) -> Source:
    """A dataset of the hub, or a local folder in a layout that the `datasets` library loads.

    With network, rows are streamed and nothing is kept; without (`HF_HUB_OFFLINE=1`), the library's cache is
    read. Splits named train, validation (or valid, dev, val) and test are official ones.

    Args:
        name: `owner/name` or a folder.
        settings: `name` is the configuration, `split` one split with optional slicing (`train[:10%]`, which
            needs the whole split in the cache), `revision` a branch, tag or commit.
    """
    try:
        import datasets as library
    except ImportError:
        raise MissingExtra("datasets", "datasets", f"the Hugging Face dataset {name!r}") from None
    builder = _tell(
        name, lambda: library.load_dataset_builder(name, settings.name, revision=settings.revision)
    )
    streaming = not offline() and "[" not in (settings.split or "")

    def rows(split: str) -> Iterator[dict[str, Any]]:
        data = _tell(
            name,
            lambda: library.load_dataset(
                name, settings.name, split=split, revision=settings.revision, streaming=streaming
            ),
        )
        return iter(data)

    available = _splits(library, builder, name, settings)
    official: tuple[str, ...] = ()
    if settings.split is not None:
        base = settings.split.split("[")[0].split("+")[0]
        if available and base not in available:
            raise UserError(f"there is no split {base!r}", where=name, fix=nearest(base, available))
        theirs = {"": [settings.split]}
    else:
        theirs = {}
        for split in available:
            theirs.setdefault(ALIASES.get(split, split), []).append(split)
        official = tuple(split for split in SPLITS if split in theirs) if "train" in theirs else ()
        if not official:
            theirs = {"": available}

    def read(split: str | None) -> Iterator[Document]:
        groups = [split] if split is not None else list(official) or [""]
        for group in groups:
            for original in theirs[group]:
                yield from _documents(name, original, rows(original), settings)

    fingerprint = digest(
        ["hub", name.rsplit("/", 1)[-1], builder.hash, settings.name, sorted(theirs.items())]
    )
    return Source(
        name, read, lambda: fingerprint, official, settings.language, builder.info.dataset_size or 0
    )


def _splits(library: Any, builder: Any, name: str, settings: CorpusSettings) -> list[str]:
    if builder.info.splits:
        return list(builder.info.splits)
    return list(
        _tell(
            name,
            lambda: library.get_dataset_split_names(name, settings.name, revision=settings.revision),
        )
    )


def _documents(
    name: str, split: str, rows: Iterator[dict[str, Any]], settings: CorpusSettings
) -> Iterator[Document]:
    for number, row in enumerate(_told_rows(name, rows), start=1):
        place = f"{name}, {split} row {number:,}"
        field = settings.text_field
        if isinstance(field, int):
            field = list(row)[field] if 0 <= field < len(row) else field
        for wanted in (field, *settings.metadata_fields):
            if wanted not in row:
                raise missing_field(settings, list(row), place, None if wanted == field else str(wanted))
        metadata = {key: row[key] for key in settings.metadata_fields}
        if document := document_of(row[str(field)], f"{split}:{number}", metadata, settings, place):
            yield document


def _told_rows(name: str, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    end = object()
    while (row := _tell(name, lambda: next(rows, end))) is not end:
        yield row


def _tell(name: str, call: Any) -> Any:
    """Run a call of the library; its many exceptions become one sentence."""
    try:
        return call()
    except UserError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines()
        message = lines[0] if lines else type(error).__name__
        if offline():
            fix = "the network is switched off (HF_HUB_OFFLINE); unset it once to fill the cache"
        else:
            fix = "check the id, its configuration (name: …), your network and, for gated data, HF_TOKEN"
        raise UserError(
            f"the dataset cannot be loaded ({type(error).__name__}: {message[:200]})", where=name, fix=fix
        ) from error
