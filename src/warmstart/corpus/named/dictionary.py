"""Bilingual dictionaries from Wiktionary."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from warmstart.corpus.data_files import DataFile, hash_table
from warmstart.corpus.named_set import NamedSet, datasets
from warmstart.corpus.reading import SourceFile

_ORIGIN = (
    "https://raw.githubusercontent.com/CPJKU/wechsel/395e3d446ecc1f000aaf4dea2da2003d16203f0b/dicts/data"
)
_LANGUAGES = {
    "ar": "arabic",
    "de": "german",
    "et": "estonian",
    "fi": "finnish",
    "sw": "swahili",
    "tr": "turkish",
    "xh": "xhosa",
    "zu": "zulu",
}


@datasets.register("dictionary", title="Bilingual word lists of WECHSEL, from Wiktionary", arxiv="2112.06598")
class Dictionary(NamedSet):
    """English words and phrases with their translations: `en-de`, `en-fi` and others, each also as `de-en`.

    Many to many, not cleaned: phrases, inflected forms and some noise. Finnish keeps single words only. The
    lists are not divided; `split` is ignored.
    """

    def parallel(self) -> list[str]:
        return sorted(name for code in _LANGUAGES for name in (f"en-{code}", f"{code}-en"))

    def pairs(self, member: str, split: str) -> tuple[list[SourceFile], Iterator[tuple[str, str]]]:
        from warmstart.corpus.pairs import read_pairs

        code = member.removeprefix("en-").removesuffix("-en")
        convert = partial(entries, single_words=code == "fi")
        origin = f"{_ORIGIN}/{_LANGUAGES[code]}.txt"
        file = DataFile("dictionaries", f"en_{code}.tsv.gz", (origin,), _SHA256[code], convert).locate()
        pairs = read_pairs(file.path)
        if member.startswith("en-"):
            return [file], pairs
        return [file], ((foreign, english) for english, foreign in pairs)


def entries(paths: list[Path], *, single_words: bool = False) -> str:
    """The lists with single spaces inside the entries, optionally without entries of several words."""
    lines = []
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            cells = [" ".join(cell.split()) for cell in line.split("\t")]
            if not single_words or not any(" " in cell for cell in cells):
                lines.append("\t".join(cells) + "\n")
    return "".join(lines)


_SHA256 = hash_table("""
ar 429c8681addc689e94a67324e71a1ae8d5cf0591ffa4b673b24f6f4027ff4523
de 4f641e994ca7adeb37d8521221c2f4cd1ab14d169735e2571788d77595c245ac
et 6c6b7cac47c75366cd7984375c9b725eab99113006779c03cca0dc9c10e0d491
fi 6c6548bac2b299666032cc3a24354f4681c612b88d6ccc4dd4478df4447fa50d
sw ecdec964087d9529002b4dafa051717647bee765a37dffec1b6cdd78f924da89
tr 8b540ea1a31df10ce5727cefa7de1489faa5c4efa892d999837f8c34c828e50f
xh f01b19d9830bd478bfce874915639ff5bc0b1d859b2760e53e9876b591e73f67
zu 3a7bdbf80a24125ae0bccf2cafdd21295bd21b4f06fc7c4867a1eee81c2ec33a
""")
