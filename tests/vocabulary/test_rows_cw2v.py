"""CW2V: the loss and its gradient against loops, convexity, and what training is for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from aux_worlds import Texts, byte_bpe, context, english

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.rows import _mixture
from warmstart.vocabulary.rows._base import RowContext
from warmstart.vocabulary.rows._mixture import Mixture
from warmstart.vocabulary.rows.cw2v import Cw2vSettings, _Stream, cw2v, skipgram_loss, train
from warmstart.vocabulary.rows.mean_of_pieces import MeanOfPiecesSettings, mean_of_pieces

QUICK = Cw2vSettings(pairs=3000, batch=300, rank=8)


def world(untied: bool = False, seed: int = 0, **options: object) -> RowContext:
    texts = english()[:400]
    source, target = byte_bpe(texts[:200], 400), byte_bpe(texts[200:], 600)
    made = context(source, target, corpus=Texts(texts[200:]), rng=np.random.default_rng(seed), **options)
    if untied:
        made.head_rows = np.random.default_rng(9).standard_normal(made.rows.shape).astype(np.float32)
    return made


def disturbed(made: RowContext) -> Mixture:
    """A mixture in the midst of training."""
    mixture = Mixture.start(made, "pieces", 8)
    with torch.no_grad():
        mixture.right += torch.from_numpy(
            np.random.default_rng(3).standard_normal(mixture.right.shape).astype(np.float32)
        )
    return mixture


def dense(mixture: Mixture) -> np.ndarray:
    """The definition: softmax of start logits plus the product of the factors."""
    start = mixture.start_weights.toarray()
    empty = start.sum(axis=1) == 0
    start = 0.99 * start + 0.01 / start.shape[1]
    start[empty] = 1 / start.shape[1]
    logits = np.log(start) + (mixture.left @ mixture.right).detach().numpy()
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("untied", [False, True])
@pytest.mark.parametrize("loss", ["each", "summed"])
def test_loss_equals_a_loop_over_pairs(untied: bool, loss: str) -> None:
    made = world(untied)
    mixture, settings = disturbed(made), Cw2vSettings(loss=loss, batch=40, pairs=40)
    weights, copies = dense(mixture), dict(made.vocab.matched.tolist())
    place = {int(token): number for number, token in enumerate(mixture.ids)}
    head = made.rows if made.head_rows is None else made.head_rows

    def row(token: int, matrix: np.ndarray) -> np.ndarray:
        return weights[place[token]] @ matrix[mixture.used] if token in place else matrix[copies[token]]

    def log_sigmoid(x: float) -> float:
        return float(-np.log1p(np.exp(-x)))

    (batch,) = _Stream(made, settings, made.corpus).batches()
    expected = []
    for centre, around, negative in zip(*batch):
        middle = row(centre, made.rows)
        against = [middle @ row(n, head) for n in negative]
        away = sum(log_sigmoid(-x) for x in against) if loss == "each" else log_sigmoid(-sum(against))
        expected.append(-log_sigmoid(middle @ row(around, head)) - away)
        assert centre in place or around in place
    assert train(mixture, iter([batch]), settings)[0] == pytest.approx(np.mean(expected), rel=1e-4)


def test_blocks_of_weights_change_neither_rows_nor_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for block in (1 << 23, 1000):
        monkeypatch.setattr(_mixture, "_BLOCK", block)
        made = world(True)
        mixture = disturbed(made)
        tokens = np.concatenate([made.vocab.new, made.vocab.new[:5], made.vocab.overlap[:7, 0]])
        rows = mixture.rows_of(tokens)
        (rows.input.square().sum() + (rows.output * rows.input.sin()).sum()).backward()
        assert mixture.left.grad is not None and mixture.right.grad is not None
        found.append([rows.input.detach(), rows.output.detach(), mixture.left.grad, mixture.right.grad])
        assert all(part.abs().max() > 0 for part in found[-1])
    for whole, parts in zip(*found):
        np.testing.assert_allclose(whole.numpy(), parts.numpy(), atol=1e-4)
    expected = dense(mixture) @ made.rows[mixture.used]
    np.testing.assert_allclose(found[0][0][: len(made.vocab.new)], expected, atol=1e-5)


def test_without_training_it_is_the_mean_of_pieces() -> None:
    made = world()
    mix = cw2v(made, Cw2vSettings(pairs=0)).check()
    plain = mean_of_pieces(made, MeanOfPiecesSettings())
    assert abs(mix.weights - plain.weights).max() < 1e-4
    few = cw2v(made, Cw2vSettings(pairs=0, top_k=1))
    assert np.diff(few.weights.indptr).max() == 1


@pytest.mark.parametrize("copy_overlap", [True, False])
def test_rows_are_convex_sparse_and_never_from_padding(copy_overlap: bool) -> None:
    made = world(copy_overlap=copy_overlap)
    mix = cw2v(made, QUICK).check()
    assert mix.weights.data.min() > 0 and np.diff(mix.weights.indptr).max() <= 32
    assert set(np.flatnonzero(~mix.fallback)) <= set(made.wanted)
    used = set(made.vocab.source_used)
    assert set(mix.weights.indices) <= used
    filled = mix.with_copies(made.vocab.overlap).apply(made.rows, rng=np.random.default_rng(0))
    pairs = made.vocab.overlap
    assert np.array_equal(filled[pairs[:, 0]], made.rows[pairs[:, 1]])


def test_training_lowers_the_loss_and_unseen_tokens_keep_their_start() -> None:
    losses = []
    for rate in (1e-12, 0.05):  # the same pairs, so that the loss of copied rows cancels
        made = world()
        settings = Cw2vSettings(pairs=24_000, batch=400, learning_rate=rate)
        mixture = Mixture.start(made, "uniform", 16)
        losses.append(train(mixture, _Stream(made, settings, made.corpus).batches(), settings))
    gain = np.subtract(*losses)
    assert len(gain) == 60 and gain[-15:].min() > 0 and gain[-15:].mean() > 2 * gain[:15].mean()
    half = world()
    half.corpus = Texts(english()[200:215])  # type: ignore[assignment]
    mix, start = cw2v(half, QUICK), cw2v(world(), Cw2vSettings(pairs=0))
    counts = _Stream(half, QUICK, half.corpus).counts
    unseen = [t for t in half.vocab.new if counts[t] == 0]
    seen = [t for t in half.vocab.new if counts[t] > 0]
    assert len(unseen) > 10 and abs(mix.weights[unseen] - start.weights[unseen]).max() < 1e-6
    assert abs(mix.weights[seen] - start.weights[seen]).max() > 1e-3


def test_a_token_moves_towards_the_row_of_its_only_neighbour() -> None:
    made = world()
    overlap = [t for t in made.vocab.overlap[:, 0] if made.vocab.target[t].text.isalpha()][:6]
    new = int(made.vocab.new[0])
    rng = np.random.default_rng(0)
    pairs = np.array([[new, overlap[0]]] * 400)
    negatives = rng.choice(overlap[1:], (400, 5))
    mixture = Mixture.start(made, "uniform", 4)
    settings = Cw2vSettings(learning_rate=0.05)
    before = mixture.rows_of(np.array([new])).input.detach().numpy()[0]
    train(mixture, ((pairs[:, 0], pairs[:, 1], negatives) for _ in range(60)), settings)
    after = mixture.rows_of(np.array([new])).input.detach().numpy()[0]
    copies = dict(made.vocab.matched.tolist())
    friend, foes = made.rows[copies[overlap[0]]], made.rows[[copies[t] for t in overlap[1:]]]
    assert after @ friend > before @ friend + 1
    assert (after @ foes.T).mean() < (before @ foes.T).mean() - 0.3


def test_pairs_lie_within_the_window_and_negatives_follow_the_unigram_distribution() -> None:
    made = world()
    settings = Cw2vSettings(window=2, pairs=3000, batch=1000)
    stream = _Stream(made, settings, made.corpus)
    near = {
        pair
        for ids in stream._texts
        for gap in (1, 2)
        for left, right in zip(ids, ids[gap:])
        for pair in ((left, right), (right, left))
    }
    batches = list(stream.batches())
    assert [len(b[0]) for b in batches] == [1000, 1000, 1000]
    assert all(pair in near for centre, around, _ in batches for pair in zip(centre, around))
    drawn = np.bincount(np.concatenate([stream._negatives(4000).ravel() for _ in range(5)]), minlength=made.shape[0])  # noqa: E501  # fmt: skip
    share = stream.counts**0.75 / (stream.counts**0.75).sum()
    assert not drawn[stream.counts == 0].any()
    expected = share * drawn.sum()
    assert np.square((drawn - expected)[expected > 5]).sum() / expected[expected > 5].sum() < 1.5
    assert len(expected[expected > 5]) > 100


def test_the_summed_loss_differs_and_agrees_with_one_negative() -> None:
    positive, negative = torch.tensor([0.3, -1.0]), torch.tensor([[0.5, -2.0], [1.0, 0.1]])
    one = negative[:, :1]
    assert skipgram_loss(positive, one, "each") == skipgram_loss(positive, one, "summed")
    assert skipgram_loss(positive, negative, "each") != skipgram_loss(positive, negative, "summed")


def test_text_is_needed_and_must_show_new_tokens() -> None:
    made = world()
    made.corpus = None
    with pytest.raises(UserError, match="'cw2v' needs a corpus"):
        cw2v(made, QUICK)
    made.corpus = Texts(["q\nq"])  # type: ignore[assignment]
    with pytest.raises(UserError, match="shows none of the new tokens"):
        cw2v(made, QUICK)
