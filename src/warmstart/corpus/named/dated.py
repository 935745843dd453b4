"""Texts with their date: for shift over time."""

from __future__ import annotations

from warmstart.corpus.data_files import DataFile
from warmstart.corpus.named_set import NamedSet, datasets
from warmstart.corpus.settings import CorpusSettings
from warmstart.corpus.source import Source, file_source

_MEMBERS = {
    "presidential": (DataFile("dated_presidential", "speeches.jsonl.gz"), ("kind", "year", "speaker")),
    "stock-tweets": (DataFile("dated_stock_tweets", "tweets.tsv.gz"), ("date", "ticker")),
}


@datasets.register("dated", title="Presidential addresses 1789-2021; tweets about stocks 2014-2015")
class Dated(NamedSet):
    """`presidential`: inaugural and State of the Union addresses, with metadata `kind`, `year` and `speaker`.
    `stock-tweets`: tweets about US stocks, with `date` and `ticker`. Only from the local data folder.
    """

    def corpora(self) -> list[str]:
        return sorted(_MEMBERS)

    def open(self, member: str, settings: CorpusSettings) -> Source:
        file, fields = _MEMBERS[member]
        chosen = settings.model_copy(update={"metadata_fields": fields, "text_field": "text"})
        return file_source(f"dated/{member}", [file.locate()], chosen, language="en")
