"""Read vectors that someone else trained, and write ours."""

from __future__ import annotations

import gzip
import io
import itertools
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from warmstart.foundation.errors import UserError
from warmstart.foundation.files import write_atomic
from warmstart.vocabulary.aux_space.space import AuxSpace, NgramTable

_FASTTEXT_MAGIC = 793712314


def load_vectors(path: str | Path, *, dim: int | None = None, max_words: int | None = None) -> AuxSpace:
    """Read word or token vectors.

    | suffix | content |
    |---|---|
    | `.vec`, `.txt`, also `.gz` | one word and its numbers per line; a first line `count dim` is optional |
    | `.bin` | fastText's own format (with its n-grams), or word2vec's binary format |
    | `.npz` | arrays `words` (text) and `vectors` `(n, dim)`, optionally `counts` |

    The frequencies of a text file are unknown; its order (most frequent first, as all published files have
    it) stands in for them by Zipf's law: the word on rank r counts as often as `1e9 / r`.

    Args:
        path: The file.
        dim: Dimensions that it must have.
        max_words: Read only the first so many words.

    Raises:
        UserError: No such file, an unknown or pickled format, a malformed line (with its number), wrong
            dimensions, numbers that are not finite.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError("there is no such file of vectors", where=path, fix="check the path")
    suffixes = [s.lower() for s in path.suffixes]
    kind = suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else (suffixes or [""])[-1]
    if kind in (".kv", ".model", ".pkl", ".npy"):
        raise UserError(
            f"{kind} files are pickles or parts of pickles, which can run any code when loaded",
            where=path,
            fix="convert the vectors where you trust them: KeyedVectors.load(path)"
            ".save_word2vec_format('vectors.bin', binary=True)",
        )
    if kind == ".npz":
        space = from_npz(path)
    elif kind == ".bin":
        space = _binary(path, max_words)
    elif kind in (".vec", ".txt"):
        space = _text(path, suffixes[-1] == ".gz", max_words)
    else:
        raise UserError(
            f"unknown format {kind!r} of vectors", where=path, fix="use .vec, .vec.gz, .bin or .npz"
        )
    if dim is not None and space.dim != dim:
        raise UserError(f"the vectors have {space.dim} dimensions, {dim} were expected", where=path)
    if not len(space):
        raise UserError("there is no vector in it", where=path)
    if not np.isfinite(space.vectors).all():
        row = int(np.flatnonzero(~np.isfinite(space.vectors).all(axis=1))[0])
        raise UserError(f"the vector of {space.names[row]!r} is not finite", where=path)
    if max_words is not None and len(space) > max_words:
        space = AuxSpace.of(
            space.names[:max_words], space.vectors[:max_words], space.counts[:max_words], space.ngrams
        )
    return space


def to_npz(path: Path, space: AuxSpace) -> None:
    """Write a space so that [`from_npz`][warmstart.vocabulary.aux_space.formats.from_npz] gives it back."""
    arrays: dict[str, np.ndarray] = {"vectors": space.vectors, "counts": space.counts}
    joined = "\0".join(space.names).encode("utf-8", "surrogatepass")
    arrays["names"] = np.frombuffer(joined, dtype=np.uint8)
    if space.ngrams is not None:
        table = space.ngrams
        used = np.flatnonzero(table.vectors.any(axis=1))  # a small text trains few of the slots
        arrays["ngrams"], arrays["ngram_slots"] = table.vectors[used], used
        arrays["ngram_table"] = np.array([len(table.vectors), table.min_n, table.max_n])
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    write_atomic(path, buffer.getvalue())


def from_npz(path: Path) -> AuxSpace:
    """Read our own files, or any `.npz` with `words` and `vectors`."""
    try:
        with np.load(path, allow_pickle=False) as file:
            held = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, KeyError) as error:
        raise UserError(
            "this .npz file cannot be read (damaged, or it holds pickled objects)",
            where=path,
            fix="save words as a text array: np.savez(path, words=np.array(words), vectors=vectors)",
        ) from error
    if "vectors" not in held or not {"names", "words"} & held.keys():
        raise UserError(f"it holds {sorted(held)} instead of words and vectors", where=path)
    if "names" in held and held["names"].dtype == np.uint8:
        names = held["names"].tobytes().decode("utf-8", "surrogatepass").split("\0")
    else:
        names = [str(word) for word in held["words" if "words" in held else "names"]]
    table = None
    if "ngrams" in held:
        slots, shortest, longest = (int(n) for n in held["ngram_table"])
        ngrams = np.zeros((slots, held["ngrams"].shape[1]), dtype=np.float32)
        ngrams[held["ngram_slots"]] = held["ngrams"]
        table = NgramTable(ngrams, shortest, longest)
    vectors = held["vectors"]
    if vectors.ndim != 2 or len(vectors) != len(names):
        raise UserError(f"{len(names)} words, but vectors of shape {vectors.shape}", where=path)
    if len(set(names)) != len(names):
        raise UserError("a word occurs twice", where=path, fix="keep one vector per word")
    return AuxSpace.of(names, vectors, held.get("counts"), table)


def zipf(count: int) -> np.ndarray:
    """Stand-in frequencies `(count,)` for words sorted by frequency: `1e9 / rank`."""
    return np.maximum(1, (1e9 / np.arange(1, count + 1)).astype(np.int64))


def _text(path: Path, packed: bool, max_words: int | None) -> AuxSpace:
    def opened() -> IO[bytes]:
        return gzip.open(path, "rb") if packed else path.open("rb")  # type: ignore[return-value]

    try:
        with opened() as file:
            return _lines(path, file, max_words)
    except (gzip.BadGzipFile, EOFError) as error:
        raise UserError("the file is damaged or not gzip", where=path) from error


def _lines(path: Path, file: Iterable[bytes], max_words: int | None) -> AuxSpace:
    lines: Iterator[tuple[int, bytes]] = enumerate(file, start=1)
    number, first = next(lines, (0, b""))
    head = first.split()
    announced = None
    if len(head) == 2 and head[0].isdigit() and head[1].isdigit():
        announced, dim = int(head[0]), int(head[1])
    elif len(head) >= 2:
        dim = len(head) - 1
        lines = itertools.chain([(number, first)], lines)
    else:
        raise UserError(f"line 1 is no vector: {first[:40]!r}", where=path)
    names: dict[str, None] = {}
    vectors: list[np.ndarray] = []
    for number, line in lines:
        if max_words is not None and len(names) >= max_words:
            break
        parts = line.rstrip().rsplit(b" ", dim)  # words of some files contain spaces
        if len(parts) != dim + 1:
            if line.strip():
                seen = len(line.split()) - 1
                raise UserError(f"line {number:,} has {seen} numbers instead of {dim}", where=path)
            continue
        try:
            vector = np.array(parts[1:], dtype=np.float32)
        except ValueError:
            raise UserError(f"line {number:,} holds something that is not a number", where=path) from None
        name = parts[0].decode("utf-8", "replace")
        if name not in names:  # published files repeat words that differ only in invalid bytes
            names[name] = None
            vectors.append(vector)
    if announced is not None and max_words is None and len(names) < announced * 0.99:
        raise UserError(f"line 1 announces {announced:,} vectors, the file has {len(names):,}", where=path)
    matrix = np.stack(vectors) if vectors else np.empty((0, dim), np.float32)
    return AuxSpace.of(names, matrix, zipf(len(names)))


def _binary(path: Path, max_words: int | None) -> AuxSpace:
    with path.open("rb") as file:
        start = file.read(4)
    try:
        if len(start) == 4 and struct.unpack("<i", start)[0] == _FASTTEXT_MAGIC:
            from gensim.models.fasttext import load_facebook_vectors

            wv = load_facebook_vectors(str(path))
            counts = [wv.get_vecattr(word, "count") for word in wv.index_to_key]
            table = NgramTable(np.asarray(wv.vectors_ngrams, np.float32), wv.min_n, wv.max_n)
            return AuxSpace.of(wv.index_to_key, wv.vectors, counts, table if wv.max_n else None)
        from gensim.models import KeyedVectors

        plain = KeyedVectors.load_word2vec_format(
            str(path), binary=True, limit=max_words, unicode_errors="replace"
        )
        return AuxSpace.of(plain.index_to_key, plain.vectors, zipf(len(plain.index_to_key)))
    except (ValueError, EOFError, struct.error, UnicodeDecodeError, AssertionError, IndexError) as error:
        raise UserError(
            "this is neither a fastText nor a word2vec .bin file, or it is damaged", where=path
        ) from error
