"""ZeTT: starts at the heuristic, asks the frozen source exactly, learns, repeats, and knows its source."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from vocab_families import FAMILIES, random_model, save_source
from vocab_tokenizers import STYLES, sentences

from warmstart.checkpoint import resolve
from warmstart.foundation.errors import UserError
from warmstart.vocabulary.map import VocabMap
from warmstart.vocabulary.predictor.decomposition import Pieces, SourcePieces
from warmstart.vocabulary.predictor.frozen import FrozenSource
from warmstart.vocabulary.predictor.hypernetwork import Hypernetwork, Layer, source_identity
from warmstart.vocabulary.predictor.settings import HypernetworkSettings, NetworkSettings
from warmstart.vocabulary.predictor.training import Trainer
from warmstart.vocabulary.rows._base import RowContext
from warmstart.vocabulary.rows.mean_of_pieces import MeanOfPiecesSettings, mean_of_pieces
from warmstart.vocabulary.rows.zett import ZettSettings, zett

WIDTH = 16
SMALL: dict[str, Any] = {
    "warmup_steps": 3,
    "max_steps": 4,
    "warmup_tokens": 64,
    "batch_size": 4,
    "block_size": 24,
    "vocab_size": 400,
    "pool_size": 40,
    "eval_tokenizers": 1,
}


def context(source: str = "bpe", target: str = "unigram", *, untied: bool = False) -> RowContext:
    old, new = STYLES[source](), STYLES[target]()
    vocab = VocabMap.build(old, new)
    rows = np.random.default_rng(0).standard_normal((vocab.source_size, WIDTH))
    head = np.random.default_rng(1).standard_normal(rows.shape) if untied else None
    return RowContext(vocab, old, new, rows, head, copy_overlap=False)  # as the paper: all are predicted


def saved(folder: Path, given: RowContext, *, noise: float = 0.0, **options: Any) -> Hypernetwork:
    """A network for this source, its output layers drawn at random where noise is given."""
    sources = [given.rows] if given.head_rows is None else [given.rows, given.head_rows]
    network = Hypernetwork(NetworkSettings(**options), WIDTH, len(sources)).double()
    pieces = Pieces.of([[i] for i in range(50)])
    network.fit_scales(sources, pieces, given.vocab.source_used)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in (head[-1].weight for head in network.leave):
            weight.add_(noise * torch.randn(weight.shape, generator=generator, dtype=weight.dtype))
    network.float().save(folder, source_identity(given.source_tokenizer, sources))
    return network


def trainer(family: str = "llama", *, tied: bool = True, texts: Any = None, **options: Any) -> Trainer:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        tokenizer = save_source(Path(name) / "source", family, tied)
        model = resolve(str(Path(name) / "source")).load_model()
    settings = HypernetworkSettings.parse(SMALL | options)
    return Trainer(model, tokenizer, FAMILIES[family][1], settings, list(texts or sentences()))


@pytest.mark.parametrize("target", ["unigram", "wordpiece", "llama"])
@pytest.mark.parametrize("untied", [False, True])
def test_untrained_it_is_the_mean_of_pieces(tmp_path: Path, target: str, untied: bool) -> None:
    given = context("bpe", target, untied=untied)
    saved(tmp_path / "net", given)
    mix = zett(given, ZettSettings(hypernetwork=str(tmp_path / "net")))
    means = mean_of_pieces(given, MeanOfPiecesSettings())
    new = given.vocab.new[[bool(given.vocab.pieces(int(i))) for i in given.vocab.new]]
    assert len(new) > 100
    for which, rows in (("input", given.rows), ("head", given.head_rows)):
        if rows is not None:
            filled = mix.apply(rows, rng=np.random.default_rng(0), which=which)  # type: ignore[arg-type]
            expected = means.apply(rows, rng=np.random.default_rng(0))
            assert np.allclose(filled[new], expected[new], rtol=0, atol=1e-13)
            shared = given.vocab.overlap
            assert np.array_equal(filled[shared[:, 0]], rows[shared[:, 1]])


def test_untrained_residual_around_the_first_piece_is_its_row() -> None:
    given = context()
    network = Hypernetwork(NetworkSettings(residual="first"), WIDTH, 1).double()
    network.fit_scales([given.rows], Pieces.of([[1]]), given.vocab.source_used)
    found = network.rows([given.rows], Pieces.of([[5, 7], [9], [3, 3, 3]]), 0)
    assert np.array_equal(found, given.rows[[5, 9, 3]])


def test_the_papers_network_starts_with_the_moments_of_the_source() -> None:
    given = context(untied=True)
    assert given.head_rows is not None
    sources = [given.rows, 3 + 2 * given.head_rows]
    pieces = Pieces.of([[int(i), int(j)] for i, j in np.random.default_rng(2).integers(0, 400, (300, 2))])
    settings = NetworkSettings(residual="none", num_layers=3, hidden_size=32)
    network = Hypernetwork(settings, WIDTH, 2).double()
    network.fit_scales(sources, pieces, np.arange(len(given.rows)))
    for number, source in enumerate(sources):
        found = network.rows(sources, pieces, number)
        assert np.allclose(found.mean(axis=0), source.mean(axis=0), atol=1e-6)
        assert np.allclose(found.std(axis=0), source.std(axis=0), atol=1e-6)


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_padding_and_company_do_not_change_a_row(layers: int) -> None:
    """Short and long tokens in one batch give what each gives alone; pieces beyond the limit are not read."""
    given = context()
    settings = NetworkSettings(max_pieces=3, residual="first", num_layers=layers, num_heads=2)
    network = Hypernetwork(settings, WIDTH, 1).double()
    network.fit_scales([given.rows], Pieces.of([[0]]), given.vocab.source_used)
    torch.nn.init.normal_(network.leave[0][-1].weight, generator=torch.Generator().manual_seed(0))  # type: ignore[index]
    lists = [[4], [5, 6], [7, 8, 9], [7, 8, 9, 10, 11], [9, 9]]
    together = network.rows([given.rows], Pieces.of(lists), 0)
    for row, pieces in zip(together, lists):
        assert np.allclose(row, network.rows([given.rows], Pieces.of([pieces]), 0)[0], atol=1e-12)
    assert np.allclose(together[2], together[3], atol=1e-12)
    other = network.rows([given.rows], Pieces.of([[7, 9, 8]]), 0)[0]
    assert np.allclose(together[2], other) == (layers == 0)  # without a layer only the first piece is read


def test_packed_layers_are_padded_attention() -> None:
    """The network without tricks: every padded position through every layer, softmax written out."""
    given = context()
    settings = NetworkSettings(max_pieces=4, residual="first", num_layers=2, num_heads=2, hidden_size=8)
    network = Hypernetwork(settings, WIDTH, 1).double()
    network.fit_scales([given.rows], Pieces.of([[0]]), given.vocab.source_used)
    torch.nn.init.normal_(network.leave[0][-1].weight, generator=torch.Generator().manual_seed(0))  # type: ignore[index]
    lists = [[4], [5, 6, 5], [7, 8, 9, 7], [10, 4]]
    found = network.rows([given.rows], Pieces.of(lists), 0)
    for row, pieces in zip(found, lists):
        x = torch.from_numpy(given.rows[pieces]) * network.in_scale + network.in_shift
        x = network.enter(x) + network.places[: len(pieces)]
        for layer in network.layers:
            assert isinstance(layer, Layer)
            q, k, v = layer.project(layer.before(x)).view(len(pieces), 3, 2, 4).permute(1, 2, 0, 3)
            seen = torch.softmax(q @ k.transpose(1, 2) / 2.0, dim=-1) @ v
            x = x + layer.merge(seen.transpose(0, 1).reshape(len(pieces), 8))
            x = x + layer.down(F.gelu(layer.up(layer.between(x))))
        out = network.leave[0](x[0]) * network.out_scale[0]
        assert np.allclose(row, given.rows[pieces[0]] + out.detach().numpy(), atol=1e-12)


def test_a_source_token_is_taken_apart_into_the_fewest_others() -> None:
    source = SourcePieces(STYLES["bpe"]())
    checked = 0
    for token in source.tokens:
        text = b" " * token.starts_word + token.text_bytes
        if token.role is not None or not 2 <= len(text) <= 7:
            continue
        cuts = []
        for inner in itertools.product([False, True], repeat=len(text) - 1):
            ends = [i + 1 for i, cut in enumerate(inner) if cut] + [len(text)]
            parts = [text[a:b] for a, b in zip([0, *ends], ends)]
            ids = [source.known.get((p[p[:1] == b" " :], p[:1] == b" ")) for p in parts]
            if None not in ids and token.id not in ids:
                cuts.append(ids)
        found = source.apart(token.id)
        assert (not found and not cuts) or (found in cuts and len(found) == min(map(len, cuts)))
        checked += bool(found)
    assert checked > 100


@pytest.mark.parametrize(
    "family,tied", [("llama", True), ("llama", False), ("gpt2", True), ("bert", True), ("roberta", True)]
)
def test_the_source_asked_with_its_own_rows_answers_as_ever(family: str, tied: bool) -> None:
    """The same vocabulary in another order gives the source's own probabilities; the hole gives none."""
    kind, task, style, sizes = FAMILIES[family]
    from transformers import AutoConfig

    tokenizer = STYLES[style]()
    ids = {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("bos", "eos", "pad")}
    config = AutoConfig.for_model(kind, **sizes, **ids, vocab_size=len(tokenizer), tie_word_embeddings=tied)
    model: Any = random_model(config, task)
    tokens = SourcePieces(tokenizer).tokens
    special = [t.id for t in tokens if t.role not in (None, "unused")]
    text = np.array([t.id for t in tokens if t.role is None])
    bias = getattr(model.get_output_embeddings(), "bias", None)
    if bias is not None:
        with torch.no_grad():
            bias[torch.from_numpy(text)] = 0.25
    inputs = torch.tensor([tokenizer(" ".join(sentences()[i : i + 3]))["input_ids"][:24] for i in range(3)])
    with torch.no_grad():
        expected = model(input_ids=inputs).logits
    frozen = FrozenSource(model, special, text)
    order = np.random.default_rng(0).permutation(text)
    layout = frozen.layout(len(order))
    new = np.zeros(len(tokenizer), dtype=np.int64)
    new[special], new[order] = layout.special, layout.tokens
    rows = [source[torch.from_numpy(order)] for source in frozen.sources]
    found = frozen.logits(layout, rows, {"input_ids": torch.from_numpy(new)[inputs]})
    kept = np.r_[special, order]
    assert torch.allclose(found[..., new[kept]], expected[..., kept], atol=1e-10)
    if model.config.pad_token_id is not None:
        assert layout.hole == model.config.pad_token_id
        assert (F.softmax(found, dim=-1)[..., layout.hole] == 0).all()
    targets = torch.from_numpy(new)[inputs]
    loss = frozen.loss(layout, rows, {"input_ids": targets}, targets)
    logits = expected[..., torch.from_numpy(kept)]
    back = torch.zeros(len(tokenizer), dtype=torch.int64)
    back[torch.from_numpy(kept)] = torch.arange(len(kept))
    reference = F.cross_entropy(logits.flatten(0, 1), back[inputs].flatten(), reduction="sum")
    assert torch.allclose(loss, reference, rtol=1e-6)


def test_warm_up_learns_a_planted_linear_world() -> None:
    """Rows of long tokens are a fixed map of their parts' mean: held-out ones beat that mean."""
    made = trainer(
        warmup_steps=150, max_steps=0, warmup_tokens=400, warmup_learning_rate=5e-3, max_grad_norm=10.0
    )
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))[0]
    rows = rng.standard_normal(made.frozen.sources[0].shape)
    composed = np.zeros(len(rows), dtype=bool)
    composed[made.goals] = True
    lengths = [len(made.pieces.tokens[i].text_bytes) for i in made.goals]
    lists = {
        int(i): made.parts.flat[s : s + n] for i, s, n in zip(made.goals, made.parts.starts, made.parts.sizes)
    }
    for index in made.goals[np.argsort(lengths, kind="stable")]:
        rows[index] = turn @ rows[lists[int(index)]].mean(axis=0)
    made.frozen.sources[0].copy_(torch.from_numpy(rows))
    made.squares = [float(np.square(rows).sum(axis=1).mean())]
    held_out = np.zeros(len(made.goals), dtype=bool)
    held_out[rng.choice(len(held_out), 60, replace=False)] = True
    goals, parts = made.goals, made.parts
    made.goals, made.parts = goals[~held_out], parts.take(np.flatnonzero(~held_out))
    asked = parts.take(np.flatnonzero(held_out))
    before = made.network.rows([rows.astype(np.float32)], asked, 0)
    made.run()
    after = made.network.rows([rows.astype(np.float32)], asked, 0)
    true = rows[goals[held_out]]
    errors = [np.square(found - true).sum(axis=1).mean() for found in (before, after)]
    assert errors[1] < 0.5 * errors[0], errors


@pytest.mark.parametrize("family,tied", [("llama", False), ("bert", True), ("xlm-roberta", True)])
def test_training_lowers_the_loss_and_leaves_the_source_alone(family: str, tied: bool) -> None:
    made = trainer(family, tied=tied, max_steps=30, learning_rate=1e-2, max_grad_norm=1.0, warmup_steps=0)
    before = [p.clone() for p in made.frozen._asked.parameters()]
    made.run()
    assert all(a.equal(b) for a, b in zip(before, made.frozen._asked.parameters(), strict=True))
    found = made.summary()
    assert found["text loss, last"] < 0.95 * found["text loss, first"], found
    measured = made.measure(list(sentences(1)))
    assert measured["bits per byte, hypernetwork"] < measured["bits per byte, mean of pieces"], measured


def test_runs_repeat_and_continue_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trainer()
    state = torch.get_rng_state()
    Hypernetwork(NetworkSettings(), WIDTH, 2, seed=3)
    whole.run()
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    stopped = trainer(save_seconds=1e-9)
    inner = stopped._main_loss

    def interrupted(number: int) -> torch.Tensor:
        if number == 5:
            raise KeyboardInterrupt
        return inner(number)

    monkeypatch.setattr(stopped, "_main_loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stopped.run(tmp_path)
    continued = trainer(save_seconds=1e-9)
    continued.run(tmp_path)
    assert continued.curve == whole.curve
    for name, value in whole.network.state_dict().items():
        assert value.equal(continued.network.state_dict()[name]), name
    other = trainer(seed=1)
    other.run(tmp_path)  # the state there is of another run
    assert other.curve != whole.curve and len(other.curve) == len(whole.curve)


def test_a_saved_network_predicts_the_same(tmp_path: Path) -> None:
    given = context(untied=True)
    assert given.head_rows is not None
    network = saved(tmp_path, given, noise=0.3, num_layers=2, hidden_size=24, num_heads=3)
    loaded, described = Hypernetwork.load(tmp_path)
    assert described["width"] == WIDTH and described["matrices"] == 2
    pieces = Pieces.of([[1, 2, 3], [4], [5, 6]])
    rows = [given.rows.astype(np.float32), given.head_rows.astype(np.float32)]
    for number in (0, 1):
        assert np.array_equal(loaded.rows(rows, pieces, number), network.rows(rows, pieces, number))
    assert not np.allclose(loaded.rows(rows, pieces, 0), loaded.rows(rows, pieces, 1))


def test_it_refuses_another_source(tmp_path: Path) -> None:
    given = context()
    saved(tmp_path / "net", given)
    settings = ZettSettings(hypernetwork=str(tmp_path / "net"))
    changed = given.rows.copy()
    changed[3, 4] += 1e-3
    wider = np.pad(given.rows, ((0, 0), (0, 1)))
    for rows in (changed, wider, given.rows[:-1]):
        with pytest.raises(UserError, match="input rows differ"):
            zett(RowContext(given.vocab, given.source_tokenizer, given.target_tokenizer, rows), settings)
    with pytest.raises(UserError, match="tokenizer"):
        zett(RowContext(given.vocab, given.target_tokenizer, given.target_tokenizer, given.rows), settings)
    untied = RowContext(given.vocab, given.source_tokenizer, given.target_tokenizer, given.rows, given.rows)
    with pytest.raises(UserError, match="no output for a head"):
        zett(untied, settings).apply(given.rows, rng=np.random.default_rng(0), which="head")


@pytest.mark.parametrize("tied", [True, False])
def test_a_fine_tuned_variant_gets_the_rows_of_the_model_that_the_network_knows(
    tied: bool, tmp_path: Path
) -> None:
    tokenizer = save_source(tmp_path / "base", "llama", tied)
    model: Any = resolve(str(tmp_path / "base")).load_model()
    base = model.get_input_embeddings().weight.detach().numpy()
    head = None if tied else model.get_output_embeddings().weight.detach().numpy()
    target = STYLES["unigram"]()
    vocab = VocabMap.build(tokenizer, target, source_size=len(base))
    given = RowContext(vocab, tokenizer, target, base, head, copy_overlap=False)
    sources = [base] if head is None else [base, head]
    network = Hypernetwork(NetworkSettings(), base.shape[1], len(sources))
    network.fit_scales(sources, Pieces.of([[i] for i in range(20)]), vocab.source_used)
    for leave in network.leave:
        torch.nn.init.normal_(leave[-1].weight, generator=torch.Generator().manual_seed(0))  # type: ignore[index]
    network.save(tmp_path / "net", source_identity(tokenizer, sources))
    tuned = [np.ascontiguousarray(source + 0.5) for source in sources]
    variant = RowContext(vocab, tokenizer, target, tuned[0], None if tied else tuned[1], copy_overlap=False)
    own = ZettSettings(hypernetwork=str(tmp_path / "net"))
    with pytest.raises(UserError, match="name as `reference`"):
        zett(variant, own)
    named = ZettSettings(hypernetwork=str(tmp_path / "net"), reference=str(tmp_path / "base"))
    mix, plain = zett(variant, named), zett(given, own)
    new = np.flatnonzero(mix.computed)  # type: ignore[attr-defined]
    assert len(new) > 100
    for which, matrix, other in zip(("input", "head"), tuned, sources):
        found, expected = (
            m.apply(r, rng=np.random.default_rng(0), which=which)[new]  # type: ignore[arg-type]
            for m, r in ((mix, matrix), (plain, other))
        )
        assert np.array_equal(found, expected)
    less = None if head is None else head[:, :-1]
    narrow = RowContext(vocab, tokenizer, target, base[:, :-1], less, copy_overlap=False)
    with pytest.raises(UserError, match="width"):
        zett(narrow, named)


def test_a_damaged_or_missing_network_is_one_sentence(tmp_path: Path) -> None:
    given = context()
    with pytest.raises(UserError, match="no hypernetwork in this folder"):
        zett(given, ZettSettings(hypernetwork=str(tmp_path)))
    saved(tmp_path / "net", given)
    config = json.loads((tmp_path / "net" / "config.json").read_text())
    for change in ({"width": 8}, {"matrices": 2}, {"network": {"hiden_size": 3}}, {"width": "x"}):
        (tmp_path / "net" / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(UserError):
            zett(given, ZettSettings(hypernetwork=str(tmp_path / "net")))
    with pytest.raises(UserError, match="not a multiple"):
        Hypernetwork(NetworkSettings(hidden_size=10, num_heads=3), WIDTH, 1)


def test_what_the_source_cannot_do(tmp_path: Path) -> None:
    """Tokens in an unknown script are drawn at random; text in one is refused, a few characters not; nor can
    it read longer blocks than it has positions for."""
    given = context("wordpiece", "bpe")
    saved(tmp_path, given)
    mix = zett(given, ZettSettings(hypernetwork=str(tmp_path)))
    part = next(t.id for t in given.vocab.target if t.text_bytes == b"\xe4")
    assert mix.fallback[part] and mix.fallback[given.vocab.text_ids].mean() < 0.6  # half are single bytes
    with pytest.raises(UserError, match="can write only"):
        trainer("bert", texts=["Москва и Киев " * 20])
    some = trainer("bert", texts=[line + " Я" for line in sentences()], max_steps=1, warmup_steps=0)
    assert not any("Я".encode() in word for word in some.batches.pool.words)
    some.run()
    assert len(some.curve) == 1
    with pytest.raises(UserError, match="seq2seq"):
        trainer("t5")
    with pytest.raises(UserError, match="positions of the source"):
        trainer("roberta", block_size=65)
    trainer("llama", block_size=64)  # exactly as many as there are
    with pytest.raises(UserError, match="unknown schedule"):
        trainer(lr_scheduler_type="lineal")


def test_the_operation_leaves_a_network_that_transplants(tmp_path: Path) -> None:
    from warmstart.recipes.runner import Runner
    from warmstart.vocabulary.settings import TransplantSettings
    from warmstart.vocabulary.transplant import transplant

    save_source(tmp_path / "source", "llama", False)
    (tmp_path / "text.txt").write_text("\n".join(sentences()), encoding="utf-8")
    STYLES["unigram"]().save_pretrained(tmp_path / "tokenizer")
    step = {"source": str(tmp_path / "source"), "corpus": str(tmp_path / "text.txt"), **SMALL}
    artifact = Runner(tmp_path / "cache").step("hypernetwork", step)
    record = json.loads((artifact / "warmstart.json").read_text())
    assert record["lineage"]["operation"] == "hypernetwork" and record["lineage"]["parents"]
    assert {"bits per byte, hypernetwork", "text loss, last"} <= record["lineage"]["measured"].keys()
    settings = TransplantSettings.parse(
        {
            "source": str(tmp_path / "source"),
            "tokenizer": str(tmp_path / "tokenizer"),
            "initialiser": {"name": "zett", "hypernetwork": str(artifact)},
        }
    )
    model: Any = transplant(settings, tmp_path / "out").load_model()
    source: Any = resolve(str(tmp_path / "source")).load_model()
    network, _ = Hypernetwork.load(artifact)
    vocab = VocabMap.build(resolve(str(tmp_path / "source")).load_tokenizer(), STYLES["unigram"]())
    rows = [source.get_input_embeddings().weight.detach(), source.get_output_embeddings().weight.detach()]
    new = [int(i) for i in vocab.new if vocab.pieces(int(i))][:50]
    for number, module in enumerate((model.get_input_embeddings(), model.get_output_embeddings())):
        expected = network.rows([r.numpy() for r in rows], Pieces.of([vocab.pieces(i) for i in new]), number)
        assert np.allclose(module.weight.detach().numpy()[new], expected, atol=1e-5)
