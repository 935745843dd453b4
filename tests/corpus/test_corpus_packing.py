"""Packed blocks against a brute-force twin, their cache, and their limits."""

from __future__ import annotations

import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from warmstart.corpus import Document, Packed, open_corpus, pack, packing
from warmstart.corpus.packing import shuffled
from warmstart.foundation.errors import UserError

LINES = [f"line {n}: the café and the 🙂 of number {n * 7919 % 1000}" for n in range(300)]


def twin(texts, tokenizer, block, eos=True):
    """All ids in one list, cut by hand."""
    ids = []
    for text in texts:
        ids += tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id] * eos
    return [ids[i : i + block] for i in range(0, len(ids) - block + 1, block)], len(ids) % block


@pytest.mark.parametrize("block", [2, 16, 100])
@pytest.mark.parametrize("eos", [True, False])
def test_blocks_equal_a_brute_force_twin(write, make_tokenizer, tmp_path, block, eos, monkeypatch):
    monkeypatch.setattr(packing, "BATCH_CHARACTERS", 200)
    tokenizer = make_tokenizer()
    corpus = open_corpus(write("a.txt", LINES))
    packed = pack(corpus, tokenizer, "train", block, tmp_path / "cache", append_eos=eos)
    texts = list(corpus.texts("train"))
    blocks, dropped = twin(texts, tokenizer, block, eos)
    assert packed.ids.tolist() == blocks
    assert packed.dropped_tokens == dropped
    assert (len(packed), packed.num_tokens) == (len(blocks), len(blocks) * block)
    assert packed[1].tolist() == blocks[1]
    assert packed[[2, 0]].tolist() == [blocks[2], blocks[0]]
    assert packed[1:3].shape == (2, block)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40), min_size=1, max_size=12
    )
)
def test_ids_decode_to_the_texts_and_bytes_add_up(make_tokenizer, tmp_path, texts):
    tokenizer = make_tokenizer()
    corpus = _Fake([Document(text, str(n)) for n, text in enumerate(texts)])
    packed = pack(corpus, tokenizer, "train", 2, tmp_path)
    total = [*np.ravel(packed.ids).tolist()]
    all_ids = twin(texts, tokenizer, 1)[0]
    total += [row[0] for row in all_ids[len(total) :]]
    pieces, current = [], []
    for token in total:
        if token == tokenizer.eos_token_id:
            pieces.append(tokenizer.decode(current, clean_up_tokenization_spaces=False))
            current = []
        else:
            current.append(token)
    assert pieces == texts and not current
    assert packed.num_bytes == packed.block_bytes.sum()
    whole = sum(len(text.encode()) for text in texts)
    assert packed.num_bytes + packed.info["dropped_bytes"] == whole
    if not packed.dropped_tokens:
        assert packed.bytes_per_token == whole / packed.num_tokens


class _Fake:
    """A corpus from a list, for texts that no file format keeps."""

    name = "fake"

    def __init__(self, documents):
        from types import SimpleNamespace

        self._documents = documents
        self.fingerprint = str(hash(tuple(document.text for document in documents)))
        self.settings = SimpleNamespace(max_bytes=None)
        self.source = SimpleNamespace(num_bytes=0)

    def documents(self, split):
        return iter(self._documents)


def test_memory_does_not_grow_with_the_corpus(write, make_tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "BATCH_CHARACTERS", 10_000)
    monkeypatch.setattr("warmstart.corpus.streams.CHUNK", 20_000)
    monkeypatch.setattr("warmstart.corpus.readers.txt.HEAD", 2_000)
    tokenizer, peaks, sizes = make_tokenizer(), [], []
    pack(open_corpus(write("warm.txt", LINES)), tokenizer, "train", 64, tmp_path)  # what is loaded once
    for times in (10, 60):
        corpus = open_corpus(write(f"{times}.txt", LINES * times))
        tracemalloc.start()
        packed = pack(corpus, tokenizer, "train", 64, tmp_path)
        assert packed[len(packed) - 1].shape == (64,)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        sizes.append((packed.path / "ids.npy").stat().st_size)
    assert isinstance(packed.ids, np.memmap)
    assert sizes[1] > 5 * sizes[0] and sizes[1] > 900_000
    assert peaks[1] < 1.3 * peaks[0]
    assert peaks[1] < sizes[1]


@pytest.mark.parametrize(("size", "dtype"), [(65_535, np.uint16), (65_536, np.uint32)])
def test_the_type_holds_every_id(write, make_tokenizer, tmp_path, size, dtype):
    base = make_tokenizer()
    tokenizer = make_tokenizer(extra=size - len(base))
    assert len(tokenizer) == size
    last = f"<extra-{size - len(base) - 1}>"
    packed = pack(
        open_corpus(write("a.txt", [f"{n}{last}" for n in range(50)])), tokenizer, "train", 8, tmp_path
    )
    assert packed.ids.dtype == dtype
    assert packed.ids.max() == size - 1


def test_built_once_and_found_again(write, make_tokenizer, tmp_path, monkeypatch):
    corpus, tokenizer = open_corpus(write("a.txt", LINES)), make_tokenizer()
    first = pack(corpus, tokenizer, "train", 32, tmp_path / "c")
    monkeypatch.setattr(packing, "_write", lambda *a: pytest.fail("packed again"))
    again = pack(open_corpus(corpus.settings), make_tokenizer(), "train", 32, tmp_path / "c")
    assert again.fingerprint == first.fingerprint and again.path == first.path
    assert [p.name for p in (tmp_path / "c").iterdir()] == [first.path.name], "nothing half-written is left"


def test_fingerprint_follows_everything_that_matters(write, make_tokenizer, tmp_path):
    path, tokenizer = write("a.txt", LINES), make_tokenizer()
    corpus = open_corpus(path)
    prints = {
        pack(corpus, tokenizer, "train", 32, tmp_path).fingerprint,
        pack(corpus, tokenizer, "valid", 32, tmp_path).fingerprint,
        pack(corpus, tokenizer, "train", 33, tmp_path).fingerprint,
        pack(corpus, tokenizer, "train", 32, tmp_path, append_eos=False).fingerprint,
        pack(corpus, tokenizer, "train", 32, tmp_path, shuffle_seed=0).fingerprint,
        pack(corpus, make_tokenizer(vocab_size=310), "train", 32, tmp_path).fingerprint,
    }
    write("a.txt", [*LINES, "one more"])
    prints.add(pack(open_corpus(path), tokenizer, "train", 32, tmp_path).fingerprint)
    assert len(prints) == 7


def test_truncation_and_padding_of_the_tokenizer_change_nothing(write, make_tokenizer, tmp_path):
    corpus, tokenizer = open_corpus(write("a.txt", LINES)), make_tokenizer(pad_token="<pad>")
    expected = pack(corpus, tokenizer, "train", 32, tmp_path)
    tokenizer(["x", "longer text"], truncation=True, max_length=3, padding=True)
    assert tokenizer.backend_tokenizer.truncation is not None
    again = pack(corpus, tokenizer, "train", 32, tmp_path)
    assert again.fingerprint == expected.fingerprint
    other = pack(corpus, tokenizer, "train", 32, tmp_path / "fresh")
    assert (other.ids == expected.ids).all()
    assert tokenizer.backend_tokenizer.truncation is not None, "the tokenizer itself is left as it was"


def test_a_damaged_pack_is_refused_and_built_again(write, make_tokenizer, tmp_path):
    corpus, tokenizer = open_corpus(write("a.txt", LINES)), make_tokenizer()
    packed = pack(corpus, tokenizer, "train", 32, tmp_path)
    expected = packed.ids.tolist()
    file = packed.path / "ids.npy"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(UserError, match="packed corpus is damaged"):
        Packed(packed.path)
    assert pack(corpus, tokenizer, "train", 32, tmp_path).ids.tolist() == expected
    with pytest.raises(UserError, match="not a packed corpus"):
        Packed(tmp_path)


def test_too_little_text_for_a_block(write, make_tokenizer, tmp_path):
    corpus = open_corpus(
        {"path": str(write("a.txt", ["short text"])), "valid_fraction": 0, "test_fraction": 0}
    )
    with pytest.raises(
        UserError, match=r"train split has \d+ tokens, less than one block of 512.*lower block_size"
    ):
        pack(corpus, make_tokenizer(), "train", 512, tmp_path)
    assert not list(tmp_path.glob("*512*")) and not list(tmp_path.glob(".*"))
    with pytest.raises(UserError, match="block_size is 1"):
        pack(corpus, make_tokenizer(), "train", 1, tmp_path)


def test_end_of_text(write, make_tokenizer, tmp_path):
    corpus = open_corpus(write("a.txt", LINES))
    tokenizer = make_tokenizer(eos=None, sep_token="[SEP]")
    packed = pack(corpus, tokenizer, "train", 32, tmp_path)
    ends = (packed.ids == tokenizer.sep_token_id).sum()
    assert abs(int(ends) - packed.num_documents) <= 1
    with pytest.raises(UserError, match=r"no end-of-text token.*eos_token"):
        pack(corpus, make_tokenizer(eos=None), "train", 32, tmp_path)


def test_a_tokenizer_without_a_fast_backend(write, make_tokenizer, tmp_path):
    fast = make_tokenizer()

    class Slow:
        eos_token_id, name_or_path = fast.eos_token_id, "slow"

        def __len__(self):
            return len(fast)

        def __call__(self, texts, **options):
            return fast(texts, **options)

        def get_vocab(self):
            return fast.get_vocab()

    corpus = open_corpus(write("a.txt", LINES))
    slow = pack(corpus, Slow(), "train", 32, tmp_path)
    assert (slow.ids == pack(corpus, fast, "train", 32, tmp_path).ids).all()


def test_packed_survives_pickling(write, make_tokenizer, tmp_path):
    packed = pack(open_corpus(write("a.txt", LINES)), make_tokenizer(), "train", 32, tmp_path)
    packed.ids, packed.block_bytes
    data = pickle.dumps(packed)
    assert len(data) < 3000, "the map is not part of it"
    assert (pickle.loads(data).ids == packed.ids).all()


@given(st.integers(0, 60), st.integers(1, 70), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_mixing_loses_nothing_and_stays_within_its_buffer(count, buffer, seed):
    documents = [Document(str(n), str(n)) for n in range(count)]
    order = [int(d.text) for d in shuffled(documents, seed, buffer)]
    assert sorted(order) == list(range(count))
    assert order == [int(d.text) for d in shuffled(documents, seed, buffer)]
    assert all(original <= place + buffer for place, original in enumerate(order))


def test_mixing_changes_the_order_of_blocks_only_through_documents(write, make_tokenizer, tmp_path):
    corpus, tokenizer = open_corpus(write("a.txt", LINES)), make_tokenizer()
    plain = pack(corpus, tokenizer, "train", 2, tmp_path)
    mixed = pack(corpus, tokenizer, "train", 2, tmp_path, shuffle_seed=3, shuffle_buffer=50)
    assert plain.num_documents == mixed.num_documents
    assert (plain.ids != mixed.ids).any()


def test_two_processes_packing_the_same(write, make_tokenizer, tmp_path, monkeypatch):
    """The slower one finds the folder of the faster one in the way, and uses it."""
    corpus, tokenizer = open_corpus(write("a.txt", LINES)), make_tokenizer()
    real = packing._write

    def slow(*arguments):
        monkeypatch.setattr(packing, "_write", real)
        pack(corpus, tokenizer, "train", 32, tmp_path / "c")
        return real(*arguments)

    monkeypatch.setattr(packing, "_write", slow)
    packed = pack(corpus, tokenizer, "train", 32, tmp_path / "c")
    assert packed.ids.tolist() == twin(list(corpus.texts()), tokenizer, 32)[0]
    assert len(list((tmp_path / "c").iterdir())) == 1


def test_documents_begin_as_the_tokenizer_begins_texts(write, make_tokenizer, tmp_path):
    from tokenizers.processors import TemplateProcessing

    tokenizer = make_tokenizer(bos_token="<bos>")
    plain = pack(open_corpus(write("a.txt", LINES)), tokenizer, "train", 16, tmp_path / "cache")
    bos = tokenizer.bos_token_id
    assert bos is not None and bos not in plain.ids, "a tokenizer that adds no <bos> gets none"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", bos)]
    )
    assert tokenizer("a")["input_ids"][0] == bos
    packed = pack(open_corpus(write("a.txt", LINES)), tokenizer, "train", 16, tmp_path / "cache")
    flat = packed.ids.ravel().tolist()
    assert flat[0] == bos
    ends = [i for i, token in enumerate(flat[:-1]) if token == tokenizer.eos_token_id]
    assert len(ends) > 100 and all(flat[i + 1] == bos for i in ends)
