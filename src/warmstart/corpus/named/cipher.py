"""English in cipher: worlds in which it is known what every new word means."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

import regex

from warmstart.corpus.document import Document
from warmstart.corpus.named_set import NamedSet, datasets
from warmstart.corpus.reading import SourceFile
from warmstart.corpus.settings import CorpusSettings
from warmstart.corpus.source import Source
from warmstart.corpus.splitting import SPLITS
from warmstart.foundation.errors import UserError, nearest
from warmstart.foundation.files import cache_home, write_atomic
from warmstart.foundation.settings import digest

_VERSION = 1  # bump when a cipher changes
_LATIN = "abcdefghijklmnopqrstuvwxyz"
_CYRILLIC = "абвгдежзиклмнопрстуфхцчшщъ"
LETTERS = dict(zip(_LATIN + _LATIN.upper(), _CYRILLIC + _CYRILLIC.upper(), strict=True))
"""The letter cipher: Latin letter to Cyrillic letter, capitals to capitals."""
_LATIN_OF = {cyrillic: latin for latin, cyrillic in LETTERS.items()}
_LETTER_TABLE = str.maketrans(LETTERS)
_ROUNDS = 8
_WORD = regex.compile(r"\p{L}+")
_BASES = ("bible/eng", "english-prose", "multi30k/en", "python-stdlib/docs")
_DEFAULT = "python-stdlib/docs"


@datasets.register("cipher", title="English in a word cipher or a letter cipher, written in Cyrillic letters")
class Cipher(NamedSet):
    """Text whose translation is known exactly, to measure how much of it a method finds out.

    `words/multi30k/en` (and other English sets): each word type becomes a pseudo-word of the same length in
    Cyrillic letters, one to one; digits, punctuation and spaces stay. Related words become unrelated ones, so
    only their use tells what they mean. `letters/…`: each letter becomes another one, so a tokenizer can cut
    the text exactly as the plain text is cut. `words` and `letters` alone encipher `python-stdlib/docs`, or
    the text that `options: {of: my-text/}` names. Documents, their order and splits are those of the plain
    text.

    Pairs: `parallel/…` joins the lines of both texts. `dictionary/…` joins the word types of the word cipher.
    Its split `train` is the half that a method may see (drawn by hash), `test` the other half, on which it
    can be judged; a word of `all` is in exactly one of them.
    """

    def corpora(self) -> list[str]:
        return sorted(f"{kind}{base}" for kind in ("letters", "words") for base in ("", *_slashed()))

    def parallel(self) -> list[str]:
        return sorted(f"{kind}{base}" for kind in ("dictionary", "parallel") for base in _slashed())

    def open(self, member: str, settings: CorpusSettings) -> Source:
        from warmstart.corpus.corpus import open_corpus

        kind, _, base = member.partition("/")
        of = settings.options.get("of", base or _DEFAULT)
        unknown = sorted(set(settings.options) - {"of"})
        if unknown or not isinstance(of, str) or (base and of != base):
            raise UserError(
                f"{unknown[0]!r} is no option of a cipher" if unknown else f"of: {of!r} cannot be enciphered",
                where=f"cipher/{member}",
                fix=nearest(unknown[0], ["of"])
                if unknown
                else "name one text: {path: cipher/words, options: {of: my-text/}}",
            )
        inner: dict[str, object] = {"path": of, "also": (), "options": {}, "split": None}
        plain = open_corpus(settings.model_copy(update=inner)).source
        turn = encipher_words if kind == "words" else encipher_letters

        def read(split: str | None) -> Iterator[Document]:
            for document in plain.read(split):
                yield replace(document, text=turn(document.text), key=document.key or document.text)

        return replace(
            plain,
            name=f"cipher/{kind}/{plain.name}",
            read=read,
            fingerprint=lambda: digest([_VERSION, kind, plain.fingerprint()]),
            language=settings.language or "cipher",
            num_bytes=2 * plain.num_bytes,
        )

    def pairs(self, member: str, split: str) -> tuple[list[SourceFile], Iterator[tuple[str, str]]]:
        from warmstart.corpus.pairs import read_pairs

        kind, _, base = member.partition("/")
        self.chosen_splits(split, ("train", "test") if kind == "dictionary" else SPLITS, f"cipher/{member}")
        path = _stored(kind, base, split)
        return [SourceFile(path, path.name)], read_pairs(path)


def encipher_letters(text: str) -> str:
    """The text with each Latin letter replaced by its Cyrillic one."""
    return text.translate(_LETTER_TABLE)


def encipher_words(text: str) -> str:
    """The text with each word replaced by its pseudo-word; a word is a run of letters."""
    return _WORD.sub(lambda match: encipher_word(match[0]), text)


@lru_cache(maxsize=200_000)
def encipher_word(word: str) -> str:
    """The pseudo-word of a word.

    The Latin letters of the word, case aside, are permuted among all strings of their length by a balanced
    Feistel network whose round function is BLAKE2b, and written in Cyrillic; case and foreign letters keep
    their places. So different words have different pseudo-words, and
    [`decipher_word`][warmstart.corpus.named.cipher.decipher_word] undoes it, without any list of words.

    >>> decipher_word(encipher_word("Naïve")) == "Naïve"
    True
    """
    return _moved(word, _LATIN, _CYRILLIC, range(_ROUNDS), sign=1)


def decipher_word(word: str) -> str:
    """The word behind a pseudo-word. Letters that are not of the cipher's alphabet stay."""
    return _moved(word, _CYRILLIC, _LATIN, reversed(range(_ROUNDS)), sign=-1)


def word_types(base: str, *, split: str = "all", min_count: int = 1) -> Counter[str]:
    """Word types of a plain text with at least one Latin letter, case kept, and how often they occur.

    Args:
        base: Named set or path of the plain text.
        split: Part of the text that is counted.
        min_count: Rarer types are left out.
    """
    from warmstart.corpus.corpus import open_corpus

    counts: Counter[str] = Counter()
    for document in open_corpus(base).documents(split):  # type: ignore[arg-type]
        counts.update(_WORD.findall(document.text))
    kept = {w: n for w, n in counts.items() if n >= min_count and any(c in LETTERS for c in w)}
    return Counter(kept)


def meanings(base: str, *, min_count: int = 1) -> Callable[[str], str | None]:
    """The truth about a word cipher: a function from a pseudo-word to the word of the plain text behind it.

    It gives None for what is no pseudo-word of this text: a part of one, or a word in plain letters.

    Args:
        base: Named set or path of the plain text.
        min_count: Words that occur less often (case aside) count as unknown.
    """
    counts: Counter[str] = Counter()
    for word, count in word_types(base).items():
        counts[word.lower()] += count
    known = {word for word, count in counts.items() if count >= min_count}

    def meaning(text: str) -> str | None:
        word = decipher_word(text)
        return word if word != text and word.lower() in known else None

    return meaning


def is_shown(word: str) -> bool:
    """Whether a word type is in the half of the dictionary that methods may see; case does not matter."""
    return bool(blake2b(word.lower().encode(), digest_size=1, person=b"shown").digest()[0] & 1)


def _moved(word: str, source: str, target: str, rounds: Iterable[int], *, sign: int) -> str:
    numbers = {letter: number for number, letter in enumerate(source)}
    lower = [c if c in numbers else _lower(c) for c in word]
    places = [i for i, c in enumerate(lower) if c in numbers]
    values = [numbers[lower[i]] for i in places]
    cut = len(values) // 2
    halves = [values[:cut], values[cut:]]
    for (
        number
    ) in rounds:  # even rounds change the second half by the first, odd rounds the first by the second
        changed = (number + 1) % 2
        key = bytes([number, len(values), *halves[1 - changed]])
        noise = blake2b(key, digest_size=64, person=b"word cipher").digest()
        halves[changed] = [(v + sign * noise[i % 64]) % 26 for i, v in enumerate(halves[changed])]
    out = list(word)
    for i, value in zip(places, halves[0] + halves[1], strict=True):
        out[i] = target[value] if word[i] == lower[i] else target[value].upper()
    return "".join(out)


def _lower(character: str) -> str:
    """Lower case of one letter of a cipher's alphabets; others (ſ, İ, the kelvin sign) as they are."""
    return character.lower() if character in LETTERS or character in _LATIN_OF else character


def _slashed() -> list[str]:
    return [f"/{base}" for base in _BASES]


def _stored(kind: str, base: str, split: str) -> Path:
    """The pairs as a file in the cache, made on first use: a fixed text, which can be fingerprinted."""
    from warmstart.corpus.corpus import open_corpus

    corpus = open_corpus(base)
    mark = digest([_VERSION, corpus.fingerprint])
    path = cache_home() / "cipher" / f"{kind}-{base.replace('/', '-')}-{split}-{mark}.tsv"
    if not path.is_file():
        texts = _words(base, split) if kind == "dictionary" else _lines(corpus.texts(split))  # type: ignore[arg-type]
        write_atomic(path, "".join(f"{plain}\t{turned}\n" for plain, turned in texts))
    return path


def _words(base: str, split: str) -> Iterator[tuple[str, str]]:
    wanted = {"train": (True,), "test": (False,)}.get(split, (True, False))
    lower = {word.lower() for word in word_types(base)}
    return ((word, encipher_word(word)) for word in sorted(lower) if is_shown(word) in wanted)


def _lines(texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    for text in texts:
        for line in text.splitlines():
            if plain := " ".join(line.split()):
                yield plain, encipher_words(plain)
