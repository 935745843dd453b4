"""The standard library of the running Python: text that lies on every machine."""

from __future__ import annotations

import json
import platform
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

from warmstart.corpus.document import Document
from warmstart.corpus.named_set import NamedSet, datasets
from warmstart.corpus.python_text import code_of, prose_of, topics_of
from warmstart.corpus.reading import SourceFile, files_digest
from warmstart.corpus.settings import CorpusSettings
from warmstart.corpus.source import Source
from warmstart.foundation.errors import UserError
from warmstart.foundation.files import cache_home, write_atomic
from warmstart.foundation.progress import note, progress
from warmstart.foundation.settings import digest

_VERSION = 1  # bump when the extraction changes, so that no older cache is read
_LEFT_OUT = {"site-packages", "dist-packages", "_bundled", "__pycache__", "fixtures"}
_TESTS = {
    "test",
    "tests",
    "idle_test",
}  # their comments are good English, their code is not what people write
_NOT_CODE = {"encodings", "pydoc_data"}  # tables, not code


@datasets.register("python-stdlib", title="Docstrings, comments and code of the Python standard library")
class PythonStdlib(NamedSet):
    """`docs`: English prose from docstrings, comment blocks and the language reference that `help()` shows.
    `code`: the source without docstrings and comments, so that the two share no text.

    One document per module; bundled packages are left out, and tests from the code. The text depends on the
    Python version, which the fingerprint tells. Extraction takes some seconds and is cached.
    """

    def corpora(self) -> list[str]:
        return ["code", "docs"]

    def open(self, member: str, settings: CorpusSettings) -> Source:
        root = Path(sysconfig.get_paths()["stdlib"])
        files = stdlib_files(root, code=member == "code")
        if not files:
            raise UserError(
                "this Python comes without the source of its standard library",
                where=root,
                fix="use a Python installation that has .py files, or another corpus",
            )
        extract = code_of if member == "code" else prose_of
        fingerprint = _Fingerprint(files, member)
        return Source(
            f"python-stdlib/{member}",
            lambda _split: iter(_cached(files, member, extract, fingerprint)),
            fingerprint,
            (),
            settings.language or ("python" if member == "code" else "en"),
            sum(file.path.stat().st_size for file in files) // (1 if member == "code" else 4),
        )


class _Fingerprint:
    """Content hash of the library, computed on the first call."""

    def __init__(self, files: list[SourceFile], member: str) -> None:
        self._files, self._member, self._value = files, member, ""

    def __call__(self) -> str:
        if not self._value:
            contents = files_digest(self._files)
            self._value = digest([_VERSION, self._member, platform.python_version(), contents])
        return self._value


def stdlib_files(root: Path, *, code: bool) -> list[SourceFile]:
    """The library's modules, sorted by name, without tests and what other people's packages bring."""
    found = []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if _LEFT_OUT.isdisjoint(parts) and not (
            code and (parts[0] in _NOT_CODE or not _TESTS.isdisjoint(parts))
        ):
            found.append(SourceFile(path, "/".join(parts)))
    return found


def _cached(
    files: list[SourceFile], member: str, extract: Callable[[str], str], fingerprint: _Fingerprint
) -> Iterator[Document]:
    """Extract once and keep the result as JSON lines."""
    store = cache_home() / "python-stdlib" / f"{member}-{fingerprint()}.jsonl"
    if not store.is_file():
        texts = dict(_extracted(files, member, extract))
        lines = [json.dumps([name, text], ensure_ascii=False) + "\n" for name, text in texts.items()]
        try:
            write_atomic(store, "".join(lines))
        except UserError as error:  # a cache that cannot be written costs time, nothing else
            note(str(error))
            yield from (Document(text, name) for name, text in texts.items())
            return
    with store.open(encoding="utf-8") as file:
        for line in file:
            name, text = json.loads(line)
            yield Document(text, name)


def _extracted(
    files: list[SourceFile], member: str, extract: Callable[[str], str]
) -> Iterator[tuple[str, str]]:
    import warnings

    with progress(f"Extracting python-stdlib/{member}", len(files)) as task, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in other people's strings
        for done, file in enumerate(files, start=1):
            task.update(done, file.id)
            try:
                source = file.path.read_text(encoding="utf-8")
                if member == "docs" and file.id == "pydoc_data/topics.py":
                    for name, text in topics_of(source).items():
                        yield f"{file.id}:{name}", text
                    continue
                text = extract(source)
            except (SyntaxError, UnicodeDecodeError, ValueError):  # a few files hold broken code on purpose
                continue
            if text.strip():
                yield file.id, text
