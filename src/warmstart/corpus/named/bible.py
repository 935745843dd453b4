"""Bible verses in eight languages, joined by verse."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from xml.etree import ElementTree

from warmstart.corpus.data_files import DataFile
from warmstart.corpus.document import Document
from warmstart.corpus.named_set import NamedSet, datasets
from warmstart.corpus.reading import SourceFile, files_digest
from warmstart.corpus.settings import CorpusSettings
from warmstart.corpus.source import Source
from warmstart.corpus.splitting import SPLITS, split_of
from warmstart.corpus.streams import whole_lines
from warmstart.foundation.errors import UserError

_RAW = "https://raw.githubusercontent.com"
_CES = f"{_RAW}/christos-c/bible-corpus/44e5fca1bfb369a5da2ee23ebc6f421c88489c5c/bibles"
_OSIS = f"{_RAW}/gratis-bible/bible/4703e07eb96f9b796bfed11b0aa60194fa7fa190"
_OSIS_NAMESPACE = "{http://www.bibletechnologies.net/2003/OSIS/namespace}"

_BOOKS = """
Gen GEN Exod EXO Lev LEV Num NUM Deut DEU Josh JOS Judg JDG Ruth RUT 1Sam 1SA 2Sam 2SA 1Kgs 1KI 2Kgs 2KI
1Chr 1CH 2Chr 2CH Ezra EZR Neh NEH Esth EST Job JOB Ps PSA Prov PRO Eccl ECC Song SON Isa ISA Jer JER Lam LAM
Ezek EZE Dan DAN Hos HOS Joel JOE Amos AMO Obad OBA Jonah JON Mic MIC Nah NAH Hab HAB Zeph ZEP Hag HAG
Zech ZEC Mal MAL
Matt MAT Mark MAR Luke LUK John JOH Acts ACT Rom ROM 1Cor 1CO 2Cor 2CO Gal GAL Eph EPH Phil PHI Col COL
1Thess 1TH 2Thess 2TH 1Tim 1TI 2Tim 2TI Titus TIT Phlm PHM Heb HEB Jas JAM 1Pet 1PE 2Pet 2PE 1John 1JO
2John 2JO 3John 3JO Jude JUD Rev REV
"""
_CODES = dict(zip(_BOOKS.split()[::2], _BOOKS.split()[1::2]))
"""OSIS name of a book to the three letters of our verse ids, in the order of the books."""
_ALL = list(_CODES)
_NEW = _ALL[_ALL.index("Matt") :]


@datasets.register("bible", title="Bible verses (World English, King James, Luther 1912 and others)")
class Bible(NamedSet):
    """Verses in eight editions, one chapter per document, one verse a line.

    The New Testament in `eng` (World English Bible), `eng-kjv` (King James), `deu` (Luther 1912), `ara`
    (Van Dyke), `swa` and `zul`; the whole Bible in `fin` (1933/38); Genesis and New Testament in `est`.
    `eng-deu` and all other ordered pairs join verses by their id (book, chapter, verse). Splits are drawn by
    chapter, so that the same chapters are held out in every language and in the pairs.
    """

    def corpora(self) -> list[str]:
        return sorted(_FILES)

    def parallel(self) -> list[str]:
        return sorted(f"{left}-{right}" for left, right in permutations(_FILES, 2))

    def open(self, member: str, settings: CorpusSettings) -> Source:
        file = _FILES[member].locate()
        return Source(
            f"bible/{member}",
            lambda _split: _chapters(file, member),
            lambda: files_digest([file]),
            (),
            settings.language or member.split("-")[0],
            file.path.stat().st_size,
        )

    def pairs(self, member: str, split: str) -> tuple[list[SourceFile], Iterator[tuple[str, str]]]:
        self.chosen_splits(split, SPLITS, f"bible/{member}")
        # eng-kjv-deu: a name of two parts is the longest known prefix
        left = max((name for name in _FILES if member.startswith(f"{name}-")), key=len)
        files = [_FILES[left].locate(), _FILES[member.removeprefix(f"{left}-")].locate()]
        return files, _joined(files[0], files[1], split)


def verses(path: Path) -> Iterator[tuple[str, str]]:
    """Pairs of verse id and text."""
    for number, line in whole_lines(path):
        name, tab, text = line.partition("\t")
        if not tab or name.count(".") != 2:
            raise UserError(
                "the line is not a verse", where=f"{path}:{number}", fix="write MAT.1.1, tab, text"
            )
        yield name, text.strip()


def verses_of_osis(paths: list[Path]) -> str:
    """Our format out of OSIS files, one per book."""
    lines = []
    for path in paths:
        for verse in ElementTree.parse(path).iter(f"{_OSIS_NAMESPACE}verse"):
            book, chapter, number = verse.attrib["osisID"].split(".")
            lines.append(_line(f"{_CODES[book]}.{chapter}.{number}", verse))
    return "".join(lines)


def verses_of_ces(paths: list[Path]) -> str:
    """Our format out of one file of the Corpus Encoding Standard."""
    segments = (segment for path in paths for segment in ElementTree.parse(path).iter("seg"))
    return "".join(_line(segment.attrib["id"].removeprefix("b."), segment) for segment in segments)


def _line(name: str, element: ElementTree.Element) -> str:
    text = " ".join("".join(element.itertext()).split())
    return f"{name}\t{text}\n" if text else ""


def _chapters(file: SourceFile, member: str) -> Iterator[Document]:
    chapter = ""
    lines: list[str] = []
    for name, text in verses(file.path):
        here = name.rpartition(".")[0]
        if here != chapter and lines:
            yield Document("\n".join(lines), f"{member}:{chapter}", key=f"bible {chapter}")
            lines = []
        chapter = here
        lines.append(text)
    if lines:
        yield Document("\n".join(lines), f"{member}:{chapter}", key=f"bible {chapter}")


def _joined(left: SourceFile, right: SourceFile, split: str) -> Iterator[tuple[str, str]]:
    defaults = CorpusSettings(path="bible")
    other = dict(verses(right.path))
    for name, text in verses(left.path):
        place = split_of(
            f"bible {name.rpartition('.')[0]}",
            seed=defaults.seed,
            valid_fraction=defaults.valid_fraction,
            test_fraction=defaults.test_fraction,
        )
        if text and other.get(name) and split in (place, "all"):
            yield text, other[name]


def _osis(name: str, folder: str, sha256: str, books: list[str]) -> DataFile:
    urls = tuple(f"{_OSIS}/{folder}/{book.lower()}.xml" for book in books)
    return DataFile("bible_verses", f"{name}.tsv.gz", urls, sha256, verses_of_osis)


def _ces(name: str, origin: str, sha256: str) -> DataFile:
    return DataFile("bible_verses", f"{name}.tsv.gz", (f"{_CES}/{origin}.xml",), sha256, verses_of_ces)


_FILES = {
    "ara": _osis(
        "ara_vandyke", "ar/arasvd", "620e29784d25c8c820a232a53e6f7b8698864d225fbb86ee74334159480eae51", _NEW
    ),
    "deu": _osis(
        "deu_luther1912",
        "de/luth1912",
        "38a4df4b0e102cf3a1b6cc65fa20eb21f4f73521f247575e739f243ee26ea624",
        _NEW,
    ),
    "eng": _osis(
        "eng_web", "en/web", "a2dbbd993dea56a3b03d94a49e3efd3563671b00004adf126d2f272602b58d78", _NEW
    ),
    "eng-kjv": _osis(
        "eng_kjv", "en/kjv", "2bf780c8b892e5437d0bc91f0c21b024ed29f46720c519a6cd4c5b4198660eda", _NEW
    ),
    "fin": _osis(
        "fin_1938",
        "fi/fin",
        "5a3d1dcaeb714e330c073fb83268118ffe7497858938aec2c03a6aac8b67493b",
        _ALL,
    ),
    "est": _ces(
        "est_part", "Estonian-PART", "1eee1aa3ce828d7c26820db589770e6622eb85b55762a43113d1f7162403b73c"
    ),
    "swa": _ces("swa_nt", "Swahili-NT", "231a4e64ffbf7f374d6adda65acb49e07e0757b5dc4e3f9a941618366847df2d"),
    "zul": _ces("zul_nt", "Zulu-NT", "e4e2cd25bcf0b94dcb8a4644cdeb4a2860c349705cf0a8bf8eb2f7d06b27e9f8"),
}
"""Language to its file. The hashes are those of the verses in our format."""
