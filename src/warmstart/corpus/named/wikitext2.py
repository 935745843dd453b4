"""WikiText-2: English Wikipedia articles."""

from __future__ import annotations

import re
from collections.abc import Iterator

from warmstart.corpus.data_files import DataFile
from warmstart.corpus.document import Document
from warmstart.corpus.named_set import NamedSet, datasets
from warmstart.corpus.reading import SourceFile, files_digest
from warmstart.corpus.settings import CorpusSettings
from warmstart.corpus.source import Source
from warmstart.corpus.splitting import SPLITS
from warmstart.corpus.streams import whole_lines
from warmstart.foundation.settings import digest

_ORIGIN = (
    "https://raw.githubusercontent.com/pytorch/examples/77f55b912142e11fcfdf5b530231fb9c52f181e8"
    "/word_language_model/data/wikitext-2"
)
_HEADING = re.compile(r" = [^=].* = ")
_VALID = DataFile(
    "wikitext2",
    "valid.txt.gz",
    (f"{_ORIGIN}/valid.txt",),
    "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
)
_TEST = DataFile(
    "wikitext2",
    "test.txt.gz",
    (f"{_ORIGIN}/test.txt",),
    "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
)
_TRAIN = DataFile("wikitext2", "train.txt.gz")


@datasets.register("wikitext2", title="Pointer Sentinel Mixture Models", arxiv="1609.07843")
class WikiText2(NamedSet):
    """Tokenised articles with `<unk>` for rare words, one document per article.

    With `wikitext2/train.txt` in the local data folder the three official splits are used. Without it, the
    official validation articles are divided: every tenth is valid, the others are train. Test is
    the official one.
    """

    def corpora(self) -> list[str]:
        return [""]

    def open(self, member: str, settings: CorpusSettings) -> Source:
        train = _TRAIN.here()
        if train is not None:
            files = {"train": train, "valid": _VALID.locate(), "test": _TEST.locate()}
        else:
            shared = _VALID.locate()
            files = {"train": shared, "valid": shared, "test": _TEST.locate()}

        def read(split: str | None) -> Iterator[Document]:
            for name in SPLITS if split is None else (split,):
                for number, document in enumerate(articles(files[name]), start=1):
                    if train is None and name != "test" and (number % 10 == 0) != (name == "valid"):
                        continue
                    document.metadata["split"] = name
                    yield document

        return Source(
            "wikitext2",
            read,
            lambda: digest({split: files_digest([files[split]]) for split in SPLITS}),
            SPLITS,
            settings.language or "en",
            sum(file.path.stat().st_size for file in files.values()),
        )


def articles(file: SourceFile) -> Iterator[Document]:
    """The articles of one file: each starts at a heading of the first level (` = Title = `)."""
    lines: list[str] = []
    start, after_blank = 1, True
    for number, line in whole_lines(file.path):
        if _HEADING.fullmatch(line.rstrip("\n")) and after_blank and any(lines):
            yield Document("\n".join(lines), f"{file.id}:{start}")
            lines, start = [], number
        after_blank = not line.strip()
        if not after_blank:
            lines.append(line.strip())
    if lines:
        yield Document("\n".join(lines), f"{file.id}:{start}")
