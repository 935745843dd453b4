"""The options with which a corpus is opened."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from warmstart.foundation.settings import Settings


class CorpusSettings(Settings):
    """What to read, how to read it, and how to divide it. A plain string is short for `path`."""

    path: str
    """File, folder of files, named set (`python-stdlib/docs`, `multi30k/de`) or Hugging Face dataset id
    (`owner/name`, or `hf:name` to be explicit). What exists on disk wins."""
    also: tuple[str, ...] = ()
    """Further texts, named like `path` and read after it with the same options."""
    name: str | None = None
    """Configuration of a Hugging Face dataset, such as `20231101.de`."""
    split: str | None = None
    """Use only this split of the source (`train`, `validation`, `train[:10%]`) and divide it by the fractions
    below. Unset: the official splits where the source has them, else all of it, divided."""
    revision: str | None = None
    """Branch, tag or commit of a Hugging Face dataset."""
    text_field: str | int = "text"
    """Field, column or key that holds the text (.jsonl, .csv, .tsv, .parquet, Hugging Face). A number is a
    column counted from 0."""
    metadata_fields: tuple[str, ...] = ()
    """Further fields to keep beside the text, as `document.metadata`."""
    language: str | None = None
    """Language code of the text, for reports and model cards."""
    unit: Literal["auto", "file", "line", "paragraph"] = "auto"
    """What one document of a .txt file is. `auto`: paragraphs (separated by blank lines) where the first
    64 kilobytes of the file have any, else lines; a giant line is then an error, while the other values have
    it cut."""
    min_characters: int = Field(default=0, ge=0)
    """Lines or paragraphs of a .txt file shorter than this are joined with the following ones."""
    max_document_characters: int = Field(default=200_000, ge=100)
    """Longer documents are cut, at a line end or a space where there is one."""
    encoding: str = "utf-8"
    """Encoding of text files, such as `latin-1` or `utf-16`."""
    header: bool = True
    """Whether .csv and .tsv files start with a row of column names."""
    quoting: Literal["auto", "minimal", "none"] = "auto"
    """Quotes in .csv and .tsv files. `minimal`: a field may be quoted and then hold line breaks. `none`:
    quotes are text. `auto`: minimal for .csv, none for .tsv."""
    reader: str | None = None
    """Read all files with this reader whatever their names (`txt`, `jsonl`, `csv`, `tsv`, `parquet`)."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of a reader or named set that another package added."""
    max_documents: int | None = Field(default=None, gt=0)
    """At most this many documents in the train split. The held-out text stays the same for every limit."""
    max_bytes: int | None = Field(default=None, gt=0)
    """The train split ends before the document that would exceed this many UTF-8 bytes."""
    max_held_out_bytes: int | None = Field(default=20_000_000, gt=0)
    """The same limit for the valid and test splits, each."""
    valid_fraction: float = Field(default=0.05, ge=0, lt=1)
    """Share of the documents held out for validation, where there is no official split."""
    test_fraction: float = Field(default=0.05, ge=0, lt=1)
    """Share of the documents held out for testing, where there is no official split."""
    seed: int = 0
    """Seed of the division into splits."""

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, data: Any) -> Any:
        return {"path": os.fspath(data)} if isinstance(data, str | Path) else data

    @model_validator(mode="after")
    def _fractions(self) -> Self:
        if self.valid_fraction + self.test_fraction >= 1:
            raise ValueError("valid_fraction and test_fraction together leave nothing to train on")
        return self

    @classmethod
    def parse(
        cls, data: Mapping[str, Any] | Self | str | Path | None = None, *, where: object = None
    ) -> Self:
        """[`Settings.parse`][warmstart.foundation.settings.Settings.parse]; a string or path is `path`."""
        if isinstance(data, str | Path):
            data = {"path": os.fspath(data)}
        return super().parse(data, where=where)
