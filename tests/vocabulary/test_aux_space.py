"""Training, loading, composing and aligning auxiliary vectors."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from aux_worlds import Texts, byte_bpe, english
from gensim.models import FastText, KeyedVectors
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.aux_space import (
    AuxSpace,
    StaticSettings,
    align_spaces,
    dictionary_hits,
    load_vectors,
    procrustes,
    subword_space,
    train_space,
)
from warmstart.vocabulary.aux_space.formats import from_npz, to_npz
from warmstart.vocabulary.aux_space.train import epochs_for

QUICK = StaticSettings(dim=12, epochs=1, min_count=2, buckets=500)


@pytest.fixture(scope="module")
def corpus() -> Texts:
    return Texts(english()[:400])


def test_token_vectors_are_deterministic_and_rare_tokens_unknown(corpus: Texts, tmp_path: Path) -> None:
    tokenizer = byte_bpe(corpus.texts, 500)
    space = train_space(corpus, QUICK, tokenizer, cache=tmp_path / "a")
    again = train_space(corpus, QUICK, tokenizer, cache=tmp_path / "b")
    assert np.array_equal(space.vectors, again.vectors)
    assert not np.array_equal(
        space.vectors,
        train_space(corpus, QUICK.model_copy(update={"seed": 1}), tokenizer, cache=tmp_path).vectors,
    )
    ids = tokenizer(corpus.texts, add_special_tokens=False)["input_ids"]
    counts = np.bincount([i for line in ids for i in line], minlength=len(tokenizer))
    assert len(space) == len(tokenizer)
    assert np.array_equal(space.known, counts >= 2)
    assert np.array_equal(space.counts[space.known], counts[space.known])
    assert not space.known[tokenizer.all_special_ids].any()


def test_vectors_are_read_from_the_cache(
    corpus: Texts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = QUICK.model_copy(update={"level": "word"})
    first = train_space(corpus, settings, cache=tmp_path)
    monkeypatch.setattr("warmstart.vocabulary.aux_space.train._train", None)  # training again would fail
    second = train_space(corpus, settings, cache=tmp_path)
    assert second.names == first.names
    assert np.array_equal(second.vectors, first.vectors)
    assert second.ngrams is not None and first.ngrams is not None
    assert np.array_equal(second.ngrams.vectors, first.ngrams.vectors)


def test_training_gives_the_same_vectors_in_another_process(tmp_path: Path) -> None:
    """Python's string hash differs between processes; the vectors must not."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; from aux_worlds import Texts\n"
        "from warmstart.vocabulary.aux_space import StaticSettings, train_space\n"
        "texts = Texts(['the cat sat on the mat near the cat'] * 40)\n"
        "settings = StaticSettings(level='word', dim=4, min_count=2)\n"
        "space = train_space(texts, settings, cache=Path(sys.argv[2]))\n"
        "print(space.names, space.vectors.tobytes().hex())\n"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program, str(Path(__file__).parent), str(tmp_path / seed)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1] and len(outputs[0]) > 100


def test_similar_contexts_give_similar_vectors(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = []
    for _ in range(3000):
        kind = rng.integers(2)
        animal, colour = rng.choice(["dog", "cat"]), rng.choice(["red", "blue"])
        texts.append(f"the {animal} eats and runs" if kind else f"paint it {colour} with oil")
    settings = StaticSettings(level="word", dim=8, epochs=3, min_n=0, max_n=0, subsample=0)
    space = train_space(Texts(texts), settings, cache=tmp_path)
    a = {
        w: space.vectors[space.index[w]] / np.linalg.norm(space.vectors[space.index[w]]) for w in space.names
    }
    assert a["dog"] @ a["cat"] > 0.8 > 0.5 > a["dog"] @ a["red"]


def test_a_small_text_is_read_more_often() -> None:
    token, word = StaticSettings(), StaticSettings(level="word")
    assert [epochs_for(n, token) for n in (1_000, 1_000_000, 100_000_000)] == [30, 5, 3]
    assert [epochs_for(n, word) for n in (1_000, 1_000_000)] == [30, 20]
    assert epochs_for(1_000, StaticSettings(epochs=2)) == 2


def test_too_little_text_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no word occurs 10 times"):
        train_space(Texts(["a b c"]), StaticSettings(level="word"), cache=tmp_path)


def test_ngram_table_equals_gensim(corpus: Texts, tmp_path: Path) -> None:
    sentences = [text.split() for text in corpus.texts[:60]]
    model = FastText(sentences, vector_size=6, min_count=2, min_n=3, max_n=4, bucket=300, workers=1, epochs=1)
    from gensim.models.fasttext import save_facebook_model

    save_facebook_model(model, str(tmp_path / "m.bin"))
    space = load_vectors(tmp_path / "m.bin", dim=6)
    word = next(iter(model.wv.key_to_index))
    np.testing.assert_allclose(space.vector(word), model.wv[word], atol=1e-6)
    np.testing.assert_allclose(space.vector("neverseenword"), model.wv["neverseenword"], atol=1e-6)
    assert space.ngrams is not None and space.ngrams.compose("") is None


def test_all_formats_give_the_same_space(tmp_path: Path) -> None:
    words = ["the", "café", "x.y"]
    matrix = np.arange(12, dtype=np.float32).reshape(3, 4) / 8
    keyed = KeyedVectors(4)
    keyed.add_vectors(words, matrix)
    keyed.save_word2vec_format(str(tmp_path / "a.bin"), binary=True)
    text = "3 4\n" + "".join(f"{w} {' '.join(map(str, v))}\n" for w, v in zip(words, matrix))
    (tmp_path / "a.vec").write_text(text)
    (tmp_path / "glove.txt").write_text(text.split("\n", 1)[1])
    (tmp_path / "a.vec.gz").write_bytes(gzip.compress(text.encode()))
    np.savez(tmp_path / "a.npz", words=np.array(words), vectors=matrix)
    for name in ("a.bin", "a.vec", "glove.txt", "a.vec.gz", "a.npz"):
        space = load_vectors(tmp_path / name, dim=4)
        assert list(space.names) == words, name
        assert np.array_equal(space.vectors, matrix), name
    assert list(load_vectors(tmp_path / "a.vec", max_words=2).names) == words[:2]
    counts = load_vectors(tmp_path / "a.vec").counts
    assert counts[0] == 2 * counts[1]  # Zipf's law stands in for counts


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.vec", "2 3\na 1 2 3\nb 1 2\n", "line 3 has 2 numbers instead of 3"),
        ("a.vec", "2 3\na 1 2 3\nb 1 x 3\n", "line 3 holds something that is not a number"),
        ("a.vec", "200 3\na 1 2 3\n", "announces 200 vectors, the file has 1"),
        ("a.vec", "1 3\na 1 nan 3\n", "the vector of 'a' is not finite"),
        ("a.vec", "1 3\na 1 2 3\n", "3 dimensions, 4 were expected"),
        ("a.vec", "", "line 1 is no vector"),
        ("a.vec.gz", "not gzip", "damaged or not gzip"),
        ("a.bin", "junk that is no model", "neither a fastText nor a word2vec"),
        ("a.npz", "junk", "cannot be read"),
        ("a.kv", "junk", "pickles"),
        ("a.xyz", "junk", "unknown format '.xyz'"),
    ],
)
def test_bad_files_end_in_one_sentence(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        load_vectors(tmp_path / name, dim=4 if "expected" in message else None)
    assert name in str(caught.value)


def test_missing_file_and_pickled_npz_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_vectors(tmp_path / "none.vec")
    np.savez(tmp_path / "p.npz", words=np.array(["a", None], dtype=object), vectors=np.ones((2, 2)))
    with pytest.raises(UserError, match="pickled objects"):
        load_vectors(tmp_path / "p.npz")


def test_npz_round_trip_keeps_odd_names(tmp_path: Path) -> None:
    space = AuxSpace.of(["a b", "\n", "ü", "\ud800"], np.eye(4), [1, 2, 3, 4])
    to_npz(tmp_path / "s.npz", space)
    back = from_npz(tmp_path / "s.npz")
    assert back.names == space.names
    assert np.array_equal(back.vectors, space.vectors) and np.array_equal(back.counts, space.counts)


def test_subword_vectors_equal_a_loop_over_words(corpus: Texts) -> None:
    tokenizer = byte_bpe(corpus.texts, 400)
    rng = np.random.default_rng(0)
    words = sorted({w for t in corpus.texts for w in t.split()})[:300]
    space = AuxSpace.of(words, rng.standard_normal((len(words), 5)), rng.integers(1, 50, len(words)))
    got = subword_space(space, tokenizer)
    cut = [
        [set(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (word, " " + word)]
        for word in words
    ]
    for token in range(len(tokenizer)):
        total, weight = np.zeros(5), 0
        for variants, vector, count in zip(cut, space.vectors, space.counts):
            for tokens in variants:
                if token in tokens:
                    total += count * vector
                    weight += count
        expected = total / weight if weight else total
        np.testing.assert_allclose(got.vectors[token], expected, atol=1e-5)
        assert got.counts[token] == weight


def test_ngram_composition_needs_ngrams(corpus: Texts, tmp_path: Path) -> None:
    tokenizer = byte_bpe(corpus.texts, 400)
    settings = StaticSettings(level="word", dim=6, epochs=1, min_count=2, min_n=5, max_n=6, buckets=500)
    space = train_space(corpus, settings, cache=tmp_path)
    tokens = subword_space(space, tokenizer, compose="auto")
    index = tokenizer(" the", add_special_tokens=False)["input_ids"]
    assert len(index) == 1
    np.testing.assert_array_equal(tokens.vectors[index[0]], space.vectors[space.index["the"]])
    bare = subword_space(space, tokenizer, compose="ngrams").known
    rest = tokens.known & ~bare  # single letters have no n-gram of five
    assert rest.sum() > 10 and (tokens.known | ~bare).all()
    words = subword_space(space, tokenizer, compose="words")
    np.testing.assert_array_equal(tokens.vectors[rest], words.vectors[rest])
    with pytest.raises(UserError, match="n-grams"):
        subword_space(AuxSpace.of(space.names, space.vectors), tokenizer, compose="ngrams")


def test_procrustes_recovers_a_planted_rotation() -> None:
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.standard_normal((20, 20)))[0]
    source = rng.standard_normal((60, 20))
    found = procrustes(source, source @ rotation)
    np.testing.assert_allclose(found, rotation, atol=1e-9)
    noisy = procrustes(source, source @ rotation + 0.01 * rng.standard_normal((60, 20)))
    np.testing.assert_allclose(noisy @ noisy.T, np.eye(20), atol=1e-9)
    assert np.abs(noisy - rotation).max() < 0.02


@pytest.mark.parametrize("variant", [{}, {"centre": True}, {"centre": True, "normalise": True}])
@pytest.mark.parametrize("wider", ["none", "source", "target"])
def test_spaces_are_aligned_from_a_part_of_the_words(variant: dict[str, bool], wider: str) -> None:
    rng = np.random.default_rng(1)
    flat = rng.standard_normal((200, 10)) * np.linspace(2, 0.5, 10)
    rotation = np.linalg.qr(rng.standard_normal((10, 10)))[0]
    names = [f"word{i}" for i in range(200)]
    left, right = flat, flat @ rotation
    pad = np.linalg.qr(rng.standard_normal((14, 14)))[0][:10]  # an isometry into more dimensions
    left, right = (left @ pad if wider == "source" else left), (right @ pad if wider == "target" else right)
    source, target = AuxSpace.of(names, left), AuxSpace.of([n.title() for n in names], right)
    result = align_spaces(source, target, [(n, n) for n in names[:60]], **variant)
    assert result.pairs == 60 and result.fit > 0.999
    a, b = result.source.apply(source).vectors, result.target.apply(target).vectors
    np.testing.assert_allclose(a, b, atol=1e-3)


def test_dictionary_words_are_tried_as_is_lower_and_title() -> None:
    source = AuxSpace.of(["House", "house", "red"], np.eye(3))
    target = AuxSpace.of(["Haus", "ROT", "zero"], np.concatenate([np.eye(3)[:2], np.zeros((1, 3))]))
    rows = dictionary_hits(
        source, target, [("HOUSE", "haus"), ("house", "Haus"), ("red", "zero"), ("no", "Haus")]
    )
    assert list(zip(*(side.tolist() for side in rows))) == [(1, 0), (0, 0)]


def test_a_dictionary_without_hits_is_a_user_error() -> None:
    space = AuxSpace.of(["a"], np.ones((1, 2)))
    with pytest.raises(UserError, match="none of the 1 dictionary pairs"):
        align_spaces(space, space, [("x", "y")])


def test_unknown_rows_stay_unknown_after_mapping() -> None:
    space = AuxSpace.of(["a", "b", "c"], [[1, 0], [0, 0], [0, 2]])
    result = align_spaces(space, space, [("a", "a"), ("c", "c")], centre=True)
    assert result.source.apply(space).known.tolist() == [True, False, True]


def test_ids_that_no_token_uses_stay_unknown(corpus: Texts, tmp_path: Path) -> None:
    """A vocabulary with a hole: the highest id lies above the number of tokens."""
    tokenizer = byte_bpe(corpus.texts, 400)
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    rare = max(state["model"]["vocab"], key=lambda token: state["model"]["vocab"][token])
    state["model"]["vocab"][rare] += 5
    holed = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)), bos_token="<s>")
    words = AuxSpace.of(["the", "method", "of"], np.eye(3), [3, 2, 1])
    for space in (train_space(corpus, QUICK, holed, cache=tmp_path), subword_space(words, holed)):
        assert len(space) == 405
        assert not space.known[399:404].any()
        assert space.known.any()
