"""TokenAdapt against its definition, written as a loop; vectors from files, from text and from an encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from aux_worlds import Texts, byte_bpe, context, english
from vocab_donors import save_donor

from warmstart.checkpoint import resolve
from warmstart.foundation.errors import UserError
from warmstart.vocabulary.aux_space import StaticSettings, load_vectors, subword_space
from warmstart.vocabulary.rows._base import RowContext
from warmstart.vocabulary.rows.token_adapt import TokenAdaptSettings, token_adapt


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[RowContext, str]:
    texts = english()[:500]
    made = context(byte_bpe(texts[:250], 500), byte_bpe(texts[250:], 650))
    words = sorted({word for text in texts for word in text.split() if len(word) > 4})[:300]
    vectors = np.random.default_rng(2).standard_normal((len(words), 9)).astype(np.float32)
    file = tmp_path_factory.mktemp("vectors") / "words.npz"
    np.savez(file, words=np.array(words), vectors=vectors)
    return made, str(file)


def softmax(scores: np.ndarray) -> np.ndarray:
    weight = np.exp(scores)
    return weight / weight.sum()


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))) if a.any() and b.any() else 0.0


def expected(
    made: RowContext, settings: TokenAdaptSettings, source: np.ndarray, target: np.ndarray, token: int
) -> np.ndarray | None:
    """Weights of one token, or None where it is drawn."""
    parts: list[tuple[float, np.ndarray]] = []
    pieces, whole = made.vocab.pieces(token), made.vocab.target[token]
    if pieces:
        inner = softmax(np.array([cosine(target[token], source[p]) for p in pieces]))
        share = [len(made.vocab.source[p].text_bytes) / len(whole.text_bytes) for p in pieces]
        local = np.zeros(made.shape[1])
        np.add.at(local, pieces, softmax((inner + share) / 2 / settings.temperature))
        parts.append((1 - settings.global_weight, local))
    if target[token].any() and settings.global_weight:
        near = np.array([cosine(target[token], s) if s.any() else -9.0 for s in source])
        best = [i for i in np.argsort(-near, kind="stable")[: settings.neighbours] if near[i] >= settings.threshold]  # noqa: E501  # fmt: skip
        if best:
            weights = np.zeros(made.shape[1])
            weights[best] = softmax(near[best] / settings.temperature)
            parts.append((settings.global_weight, weights))
    if not parts:
        return None
    return parts[0][1] if len(parts) == 1 else sum(share * weights for share, weights in parts)  # type: ignore[return-value]


@pytest.mark.parametrize(
    "options",
    [{}, {"global_weight": 0.0}, {"global_weight": 1.0, "neighbours": 7}, {"threshold": 0.6}],
    ids=str,
)
def test_weights_equal_the_definition(world: tuple[RowContext, str], options: dict[str, float]) -> None:
    made, file = world
    settings = TokenAdaptSettings(vectors=file, compose="words", **options)
    words = load_vectors(file)
    source = subword_space(words, made.source_tokenizer).vectors
    target = subword_space(words, made.target_tokenizer).vectors
    mix = token_adapt(made, settings).check()
    without = 0
    for token in made.vocab.new:
        weights = expected(made, settings, source, target, int(token))
        assert weights is not None and not mix.fallback[token]
        np.testing.assert_allclose(mix.weights[token].toarray()[0], weights, atol=1e-6)
        without += not target[token].any()
    assert 0 < without < len(made.vocab.new) and mix.weights.data.min() > 0


def test_tokens_without_pieces_take_the_global_part_and_without_vector_are_drawn(
    world: tuple[RowContext, str],
) -> None:
    made, file = world
    settings = TokenAdaptSettings(vectors=file, compose="words")
    target = subword_space(load_vectors(file), made.target_tokenizer)
    fresh = context(made.source_tokenizer, made.target_tokenizer)
    new = fresh.vocab.new
    with_vector, without = new[target.known[new]][0], new[~target.known[new]][0]
    for token in (with_vector, without):
        fresh.vocab.pieces_all()[token] = []
    mix = token_adapt(fresh, settings).check()
    assert mix.fallback[without] and mix.weights[with_vector].nnz == 3


def test_copied_rows_are_bit_equal(world: tuple[RowContext, str]) -> None:
    made, file = world
    pairs = made.vocab.overlap
    mix = token_adapt(made, TokenAdaptSettings(vectors=file)).with_copies(pairs)
    filled = mix.apply(made.rows, rng=np.random.default_rng(0))
    assert np.array_equal(filled[pairs[:, 0]], made.rows[pairs[:, 1]])


def test_an_encoder_gives_the_mean_of_its_states_over_the_bare_string(
    world: tuple[RowContext, str], tmp_path: Path
) -> None:
    made, _ = world
    rows = np.random.default_rng(3).standard_normal((made.shape[0], 8)).astype(np.float32)
    name = save_donor(tmp_path / "encoder", made.target_tokenizer, rows)
    model, tokenizer = resolve(name).load_model(), made.target_tokenizer

    def encoded(side: list) -> np.ndarray:  # type: ignore[type-arg]
        found = np.zeros((len(side), 8))
        for number, token in enumerate(side):
            if token.is_text and token.text.strip():
                ids = tokenizer(token.text, return_tensors="pt")["input_ids"]
                with torch.no_grad():
                    states = model(ids, output_hidden_states=True).hidden_states[-1]
                found[number] = states[0].mean(dim=0).numpy()
        return found

    source, target = encoded(made.vocab.source), encoded(made.vocab.target)
    settings = TokenAdaptSettings(encoder=name)
    mix = token_adapt(made, settings)
    for token in made.vocab.new[::5]:
        weights = expected(made, settings, source, target, int(token))
        np.testing.assert_allclose(mix.weights[token].toarray()[0], weights, atol=1e-5)


def test_vectors_are_trained_on_the_target_text_and_what_is_missing_is_said(
    world: tuple[RowContext, str], tmp_path: Path
) -> None:
    made, file = world
    quick = StaticSettings(level="word", dim=8, epochs=1, min_count=3, buckets=500)
    text = context(made.source_tokenizer, made.target_tokenizer, corpus=Texts(english()[:300]))
    mix = token_adapt(text, TokenAdaptSettings(training=quick)).check()
    assert (np.diff(mix.weights.indptr)[text.vocab.new] > 3).mean() > 0.5
    with pytest.raises(UserError, match="token-adapt"):
        token_adapt(made, TokenAdaptSettings())
    with pytest.raises(UserError, match="either an encoder or vectors"):
        TokenAdaptSettings.parse({"encoder": "a", "vectors": file})
    with pytest.raises(UserError, match="level must be word"):
        TokenAdaptSettings.parse({"training": {"level": "token"}})
    np.savez(tmp_path / "n.npz", words=np.array(["\u4f60"]), vectors=np.zeros((1, 3)))
    with pytest.raises(UserError, match="no token of the new tokenizer has a vector"):
        token_adapt(made, TokenAdaptSettings(vectors=str(tmp_path / "n.npz")))
