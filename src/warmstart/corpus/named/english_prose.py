"""English books in the public domain, dated 1651 to 1915."""

from __future__ import annotations

from warmstart.corpus.data_files import DataFile
from warmstart.corpus.named_set import NamedSet, datasets
from warmstart.corpus.settings import CorpusSettings
from warmstart.corpus.source import Source, split_source

_BOOKS = {
    "train": """1651_Hobbes_Leviathan 1653_Walton_Complete_Angler 1719_Defoe_Robinson_Crusoe
        1726_Swift_Gullivers_Travels 1742_Fielding_Joseph_Andrews 1768_Sterne_Sentimental_Journey
        1813_Austen_Pride_and_Prejudice 1847_C_Bronte_Jane_Eyre 1847_E_Bronte_Wuthering_Heights
        1855_Trollope_The_Warden 1861_Dickens_Great_Expectations 1874_Hardy_Far_from_the_Madding_Crowd
        1891_Hardy_Tess 1902_Doyle_Hound_of_the_Baskervilles
        1911_Burnett_Secret_Garden 1915_Ford_Good_Soldier""",
    "valid": "1883_Stevenson_Treasure_Island",
    "test": "1908_Forster_Room_with_a_View",
}


@datasets.register("english-prose", title="English books in the public domain, 1651-1915")
class EnglishProse(NamedSet):
    """Eighteen books; a document is a run of paragraphs of at least 2,000 characters. Whole books are held
    out: Treasure Island is valid, A Room with a View is test (our choice, there is no official one).

    Only from the local data folder: the texts were cut by hand and have no single origin to download from.
    """

    def corpora(self) -> list[str]:
        return [""]

    def open(self, member: str, settings: CorpusSettings) -> Source:
        files = {
            split: [DataFile("english_prose", f"{book}.txt.gz").locate() for book in books.split()]
            for split, books in _BOOKS.items()
        }
        chosen = settings.model_copy(update={"unit": "paragraph", "min_characters": 2000})
        return split_source("english-prose", files, chosen, "en")
