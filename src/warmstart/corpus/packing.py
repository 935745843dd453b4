"""Tokenise a corpus once into fixed-length blocks on disk."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from warmstart.corpus.corpus import Corpus
from warmstart.corpus.document import Document
from warmstart.corpus.packed import Packed
from warmstart.corpus.splitting import Split
from warmstart.evaluation.special import end_token
from warmstart.foundation.errors import UserError
from warmstart.foundation.files import atomic_folder, cache_home
from warmstart.foundation.progress import note, progress
from warmstart.foundation.settings import digest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

BATCH_CHARACTERS = 1 << 20
"""Characters tokenised at a time: what bounds the memory, together with the longest document."""

BATCH_DOCUMENTS = 4096
_VERSION = 1  # bump when the same inputs give other blocks


def pack(
    corpus: Corpus,
    tokenizer: PreTrainedTokenizerBase,
    split: Split = "train",
    block_size: int = 512,
    cache_dir: Path | str | None = None,
    *,
    append_eos: bool = True,
    shuffle_seed: int | None = None,
    shuffle_buffer: int = 10_000,
) -> Packed:
    """Documents, each closed by the end-of-text token, one after the other, cut into blocks.

    A block may start and end inside a document. The last, unfinished block is dropped and counted. Documents
    begin with the beginning-of-text token where the tokenizer itself puts one (Llama, Gemma); no other
    special token is added. Built once per corpus, tokenizer and settings, and found again
    by their hash; memory holds one batch of documents, however large the corpus is.

    Args:
        corpus: What to pack.
        tokenizer: A transformers tokenizer; a fast one is used in batches.
        split: Which split of the corpus.
        block_size: Tokens per block.
        cache_dir: Where packed corpora are kept; the cache folder of warmstart when not given.
        append_eos: Close every document with `eos_token`, or `sep_token` where there is none (BERT).
        shuffle_seed: Mix the documents' order with this seed; unset keeps the reading order.
        shuffle_buffer: Documents in memory while mixing: each drawn one is a random one of these.

    Raises:
        UserError: The split has less text than one block; the tokenizer has no end of text; a full disk.
    """
    if block_size < 2:
        raise UserError(f"block_size is {block_size}", fix="use 2 or more")
    end = end_token(tokenizer) if append_eos else None
    encoder = _Encoder(tokenizer, _document_start(tokenizer))
    mixing = None if shuffle_seed is None else [shuffle_seed, shuffle_buffer]
    fingerprint = digest(
        [_VERSION, corpus.fingerprint, encoder.fingerprint, split, block_size, encoder.start, end, mixing]
    )
    folder = Path(cache_dir) if cache_dir is not None else cache_home() / "packed"
    path = folder / f"{_plain(corpus.name)}-{split}-{block_size}-{fingerprint}"
    if path.exists():
        try:
            return Packed(path)
        except UserError:
            note(f"{path.name} is damaged and is packed again")
            shutil.rmtree(path)
    documents: Iterator[Document] = corpus.documents(split)
    if shuffle_seed is not None:
        documents = shuffled(documents, shuffle_seed, shuffle_buffer)
    try:
        with atomic_folder(path) as temporary:
            info = _write(temporary, documents, encoder, block_size, end, corpus, split)
            info |= {
                "fingerprint": fingerprint,
                "corpus": corpus.name,
                "split": split,
                "append_eos": append_eos,
            }
            info["corpus_fingerprint"], info["tokenizer_fingerprint"] = (
                corpus.fingerprint,
                encoder.fingerprint,
            )
            info["files"] = {name: (temporary / name).stat().st_size for name in ("ids.npy", "bytes.npy")}
            (temporary / "packed.json").write_text(json.dumps(info, indent=1))
    except OSError as error:  # another process packed the same in the meantime
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not path.exists():
            raise
    return Packed(path)


def shuffled(documents: Iterable[Document], seed: int, buffer: int) -> Iterator[Document]:
    """Documents in a random order that depends on the seed only, holding at most `buffer` of them.

    A document can move forward at most `buffer` places, and backward any number.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    held: list[Document] = []
    for document in documents:
        if len(held) < buffer:
            held.append(document)
            continue
        place = int(rng.integers(buffer))
        yield held[place]
        held[place] = document
    yield from (held[int(place)] for place in rng.permutation(len(held)))


def _write(
    folder: Path,
    documents: Iterator[Document],
    encoder: _Encoder,
    block_size: int,
    end: int | None,
    corpus: Corpus,
    split: str,
) -> dict[str, Any]:
    """Write the two arrays and return the counts."""
    import numpy as np

    dtype = np.dtype("<u2" if encoder.size < 65_536 else "<u4")
    tail_ids = np.empty(0, dtype=dtype)
    tail_bytes = np.empty(0, dtype=np.uint32)
    blocks, kept_bytes, seen_bytes, num_documents = 0, 0, 0, 0
    expected = corpus.settings.max_bytes if split == "train" else None
    total = max(expected or corpus.source.num_bytes, 1)
    ids_path, bytes_path = folder / "ids.npy", folder / "bytes.npy"
    with (
        ids_path.open("wb") as ids_file,
        bytes_path.open("wb") as bytes_file,
        progress(f"Packing {corpus.name} ({split})", total) as task,
    ):
        length = _header(ids_file, (0, block_size), dtype)
        _header(bytes_file, (0,), np.dtype("<u4"))
        for batch in _batches(documents):
            ids, token_bytes = encoder.encode(batch, end, dtype)
            num_documents += len(batch)
            seen_bytes += int(token_bytes.sum())
            ids, token_bytes = np.concatenate([tail_ids, ids]), np.concatenate([tail_bytes, token_bytes])
            whole = len(ids) // block_size
            ids_file.write(ids[: whole * block_size].tobytes())
            sums = token_bytes[: whole * block_size].reshape(whole, block_size).sum(1, dtype=np.uint32)
            bytes_file.write(sums.astype("<u4").tobytes())
            blocks, kept_bytes = blocks + whole, kept_bytes + int(sums.sum(dtype=np.int64))
            tail_ids, tail_bytes = ids[whole * block_size :].copy(), token_bytes[whole * block_size :].copy()
            task.update(min(seen_bytes, total), f"{seen_bytes / 1e6:.1f} MB  {blocks * block_size:,} tokens")
        if not blocks:
            raise UserError(
                f"the {split} split has {len(tail_ids):,} tokens, less than one block of {block_size:,}",
                where=corpus.name,
                fix="lower block_size, or give more text",
            )
        if _header(ids_file, (blocks, block_size), dtype) != length:
            raise AssertionError("the array header changed its length")
        _header(bytes_file, (blocks,), np.dtype("<u4"))
    return {
        "blocks": blocks,
        "block_size": block_size,
        "documents": num_documents,
        "bytes": kept_bytes,
        "dropped_tokens": len(tail_ids),
        "dropped_bytes": int(tail_bytes.sum()),
        "dtype": dtype.name,
    }


def _header(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Write the .npy header at the start; numpy pads it so that any first length fits in place."""
    from numpy.lib import format as npy

    file.seek(0)
    npy.write_array_header_1_0(
        file, {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    )
    return file.tell()


def _batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if size >= BATCH_CHARACTERS or len(batch) >= BATCH_DOCUMENTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


class _Encoder:
    """Text to ids without special tokens: the fast backend in batches, else the tokenizer itself."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, start: int | None = None) -> None:
        self.size, self.start = len(tokenizer), start
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._tokenizer, self._backend = tokenizer, None
        if backend is not None:
            from tokenizers import Tokenizer

            # a copy, because truncation and padding are switched off in it
            self._backend = Tokenizer.from_str(backend.to_str())
            self._backend.no_truncation()
            self._backend.no_padding()
            self.fingerprint = hashlib.sha256(self._backend.to_str().encode()).hexdigest()[:16]
        else:
            self.fingerprint = digest([type(tokenizer).__name__, tokenizer.get_vocab()])

    def encode(
        self, documents: list[Document], end: int | None, dtype: np.dtype[Any]
    ) -> tuple[NDArray[Any], NDArray[np.uint32]]:
        """Ids of all documents in a row `(T,)`, and the bytes of text each stands for `(T,)`."""
        import numpy as np

        texts = [document.text for document in documents]
        rows: list[list[int]]
        if self._backend is not None:
            encodings = self._backend.encode_batch_fast(texts, add_special_tokens=False)
            rows = [encoding.ids for encoding in encodings]
        else:
            rows = self._tokenizer(texts, add_special_tokens=False, truncation=False)["input_ids"]
        head, tail = [[] if token is None else [token] for token in (self.start, end)]
        lengths = np.array([len(head) + len(row) + len(tail) for row in rows])
        whole = itertools.chain.from_iterable((*head, *row, *tail) for row in rows)
        ids = np.fromiter(whole, dtype, lengths.sum())
        sizes = np.array([document.num_bytes for document in documents], dtype=np.int64)
        return ids, _spread(sizes, lengths)


def _spread(sizes: NDArray[Any], lengths: NDArray[Any]) -> NDArray[np.uint32]:
    """Divide `sizes[i]` bytes over `lengths[i]` tokens in whole bytes that differ by at most one."""
    import numpy as np

    owner = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    size, length = sizes[owner], lengths[owner]
    return (size * (place + 1) // length - size * place // length).astype(np.uint32)


def _document_start(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The beginning-of-text id if the tokenizer itself puts it before a text; training must see it too."""
    bos = getattr(tokenizer, "bos_token_id", None)
    return (
        bos
        if bos is not None and tokenizer("a")["input_ids"][:1] == [bos] != [tokenizer.cls_token_id]
        else None
    )


def _plain(name: str) -> str:
    return (
        "".join(char if char.isalnum() or char in "._" else "-" for char in name).strip("-.")[:60] or "corpus"
    )
