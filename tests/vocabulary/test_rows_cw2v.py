"""CW2V: loss and gradient against their definitions, convexity, heads of their own, what training is for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from aux_worlds import Texts, byte_bpe, context, english

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.mix import RowMix
from warmstart.vocabulary.rows import _mixture
from warmstart.vocabulary.rows._base import RowContext
from warmstart.vocabulary.rows._mixture import Mixture, bf16_pays, mixed_rows
from warmstart.vocabulary.rows.cw2v import Cw2vSettings, _Stream, cw2v, skipgram_loss, train
from warmstart.vocabulary.rows.mean_of_pieces import MeanOfPiecesSettings, mean_of_pieces
from warmstart.vocabulary.two_mixes import TwoMixes

QUICK = Cw2vSettings(pairs=3000, batch=300, rank=8)


def world(untied: bool = False, seed: int = 0, **options: object) -> RowContext:
    texts = english()[:400]
    source, target = byte_bpe(texts[:200], 400), byte_bpe(texts[200:], 600)
    made = context(source, target, corpus=Texts(texts[200:]), rng=np.random.default_rng(seed), **options)
    if untied:
        made.head_rows = np.random.default_rng(9).standard_normal(made.rows.shape).astype(np.float32)
    return made


def disturbed(made: RowContext, own_head: bool = False) -> Mixture:
    """A mixture in the midst of training."""
    mixture = Mixture.start(made, "pieces", 8, own_head=own_head)
    rng = np.random.default_rng(3)
    with torch.no_grad():
        for _, right in mixture.factors:
            right += torch.from_numpy(rng.standard_normal(right.shape).astype(np.float32))
    return mixture


def dense(mixture: Mixture, which: int = 0) -> np.ndarray:
    """The definition: softmax of start logits plus the product of the factors."""
    start = mixture.start_weights.toarray()
    empty = start.sum(axis=1) == 0
    start = 0.99 * start + 0.01 / start.shape[1]
    start[empty] = 1 / start.shape[1]
    left, right = mixture.factors[which]
    logits = np.log(start) + (left @ right).detach().numpy()
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("head", ["tied", "own", "input"])
@pytest.mark.parametrize("loss", ["each", "summed", "softmax"])
def test_loss_equals_a_loop_over_pairs(head: str, loss: str) -> None:
    made = world(head != "tied")
    settings = Cw2vSettings.parse({"loss": loss, "batch": 40, "pairs": 40})
    mixture = disturbed(made, own_head=head == "own")
    assert len(mixture.factors) == (2 if head == "own" else 1)
    mixes, copies = [dense(mixture), dense(mixture, int(head == "own"))], dict(made.vocab.matched.tolist())
    assert head != "own" or abs(mixes[0] - mixes[1]).max() > 0.1
    place = {int(token): number for number, token in enumerate(mixture.ids)}
    matrices = [made.rows, made.rows if made.head_rows is None else made.head_rows]

    def row(token: int, which: int) -> np.ndarray:
        if token in place:
            return mixes[which][place[token]] @ matrices[which][mixture.used]
        return matrices[which][copies[token]]

    def log_sigmoid(x: float) -> float:
        return float(-np.log1p(np.exp(-x)))

    (batch,) = _Stream(made, settings, made.corpus).batches()
    assert batch[2].shape == (40, 0 if loss == "softmax" else 5)
    expected, everything = [], sorted({*place, *copies})
    for centre, around, negative in zip(*batch):
        middle = row(centre, 0)
        assert centre in place or around in place
        if loss == "softmax":
            scores = [middle @ row(other, 1) for other in everything]
            expected.append(np.logaddexp.reduce(scores) - middle @ row(around, 1))
            continue
        against = [middle @ row(n, 1) for n in negative]
        away = sum(log_sigmoid(-x) for x in against) if loss == "each" else log_sigmoid(-sum(against))
        expected.append(-log_sigmoid(middle @ row(around, 1)) - away)
    assert train(mixture, iter([batch]), settings)[0] == pytest.approx(np.mean(expected), rel=1e-4)


@pytest.mark.parametrize(("block", "kept"), [(1 << 20, 1 << 27), (1, 1 << 27), (1, 0)])
def test_rows_and_gradients_are_those_of_the_definition(
    block: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64 against autograd through the whole softmax, in one block and many, kept or computed anew."""
    monkeypatch.setattr(_mixture, "_BLOCK", block)
    monkeypatch.setattr(_mixture, "_KEPT", kept)
    mixture, rng = disturbed(world()), np.random.default_rng(0)
    numbers = np.arange(len(mixture.ids))
    start = mixture.start_weights[numbers]
    assert len(numbers) > 128, "more than two blocks"
    full = 0.99 * start.toarray() + 0.01 / start.shape[1]
    full[np.diff(start.indptr) == 0] = 1.0
    left, right = (f.detach().double().requires_grad_() for f in mixture.factors[0])
    pool = mixture.pools[0].double()
    given = torch.from_numpy(rng.standard_normal((len(numbers), pool.shape[1])))
    plain = torch.softmax(torch.from_numpy(np.log(full)) + left @ right, dim=1) @ pool
    expected = torch.autograd.grad((plain * given).sum(), [left, right])
    made = mixed_rows(
        left, right, pool, start, torch.log1p(torch.from_numpy(start.data) * 99 * start.shape[1])
    )
    np.testing.assert_allclose(made.detach(), plain.detach(), atol=1e-12)
    for found, wanted in zip(torch.autograd.grad((made * given).sum(), [left, right]), expected):
        assert wanted.abs().max() > 0.1
        np.testing.assert_allclose(found, wanted, atol=1e-10)
    assert mixture._raised(start).numpy() == pytest.approx(
        np.log1p(99 * start.shape[1] * start.data), rel=1e-6
    )


def test_copied_and_mixed_rows_stand_in_their_places() -> None:
    made = world(True)
    mixture = disturbed(made, own_head=True)
    tokens = np.concatenate([made.vocab.new, made.vocab.new[:5], made.vocab.overlap[:7, 0]])
    for which, matrix in enumerate((made.rows, made.head_rows)):
        assert matrix is not None
        rows = mixture.rows(tokens, which).detach().numpy()
        expected = dense(mixture, which) @ matrix[mixture.used]
        np.testing.assert_allclose(rows[: len(made.vocab.new)], expected, atol=1e-5)
        assert np.array_equal(rows[len(made.vocab.new) :][:5], rows[:5])
        assert np.array_equal(rows[-7:], matrix[made.vocab.overlap[:7, 1]])
        np.testing.assert_allclose(
            mixture.weights(np.arange(len(mixture.ids)), which).numpy(), dense(mixture, which), atol=1e-6
        )


def test_bfloat16_rounds_only_what_training_has_changed() -> None:
    mixture = disturbed(world())
    tokens, steps = mixture.ids, []
    exact = mixture.rows(tokens)
    start = torch.from_numpy(mixture.start_weights.toarray()).float() @ mixture.pools[0]
    given = torch.from_numpy(np.random.default_rng(1).standard_normal(exact.shape).astype(np.float32))
    mixture.bf16 = True
    rough = mixture.rows(tokens)
    change = (exact - start).norm(dim=1)
    error = (rough - exact).norm(dim=1)
    assert (error < 0.01 * change + 1e-6).all() and error.max() > 1e-6
    for rows in (exact, rough):
        for factor in mixture.parameters:
            factor.grad = None
        (rows * given).sum().backward()
        steps.append([factor.grad.clone() for factor in mixture.parameters])  # type: ignore[union-attr]
    for one, other in zip(*steps):
        assert (one - other).norm() < 0.02 * one.norm()
    assert not bf16_pays(8000 * 256), "small sources stay as they are"


@pytest.mark.parametrize("head", ["own", "input"])
def test_an_untied_head_has_mixtures_of_its_own_unless_told(head: str) -> None:
    made = world(True)
    assert made.head_rows is not None
    settings = QUICK.model_copy(update={"head": head})
    mix = cw2v(made, settings).check()
    plain = mix.apply(made.rows, rng=np.random.default_rng(0))
    bias = np.arange(len(made.rows), dtype=np.float64)
    finished = mix.with_mean(made.vocab.new[:3]).with_copies(made.vocab.overlap).check()
    rows, heads = (
        finished.apply(matrix, rng=np.random.default_rng(0), which=which)  # type: ignore[arg-type]
        for matrix, which in ((made.rows, "input"), (made.head_rows, "head"))
    )
    pairs, new = made.vocab.overlap, made.vocab.new[3:]
    for filled, matrix in ((rows, made.rows), (heads, made.head_rows)):
        assert np.array_equal(filled[pairs[:, 0]], matrix[pairs[:, 1]])
        np.testing.assert_allclose(filled[made.vocab.new[0]], matrix.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(rows[new], plain[new], atol=1e-6)
    if head == "input":
        assert type(mix) is RowMix
        return
    assert isinstance(mix, TwoMixes)
    other = mix.of_head
    assert other.weights.data.min() > 0 and abs(other.weights - mix.weights).max() > 1e-3
    np.testing.assert_allclose(heads[new], other.weights[new] @ made.head_rows, atol=1e-6)
    np.testing.assert_allclose(finished.apply_bias(bias)[new], other.weights[new] @ bias, atol=1e-9)


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
    before = mixture.rows(np.array([new])).detach().numpy()[0]
    train(mixture, ((pairs[:, 0], pairs[:, 1], negatives) for _ in range(60)), settings)
    after = mixture.rows(np.array([new])).detach().numpy()[0]
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
