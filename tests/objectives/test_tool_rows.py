"""Tools as output rows: labels, penalty, prior, and training that touches nothing but the tools."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "training"))
import training_tiny as tiny
from objectives_taught import Vocabulary, model
from torch.nn import functional as F

from warmstart.foundation.errors import UserError
from warmstart.objectives import objectives
from warmstart.objectives.tool_rows import mark_calls, tool_prior
from warmstart.training import train

TOOLS = [20, 21]


def objective(tools: Any = TOOLS, prior: Any = None, **settings: Any) -> Any:
    entry = objectives.get("tool-rows")
    return entry.target(entry.settings.parse(settings), Vocabulary(), tools=tools, prior=prior)


def blocks() -> np.ndarray:
    one = mark_calls([5, 6, 7, 8, 9, 10], [(2, 4, 20)])
    two = mark_calls([11, 12, 13, 14, 15, 16], [(5, 6, 21), (1, 2, 20)])
    two[:, 4:] = [[15, -1], [15, -1]]  # the last call cut off by padding
    return np.stack([one, two])


def test_a_call_is_its_tool_at_its_first_token_and_nothing_after() -> None:
    assert blocks()[0].tolist() == [[5, 6, 7, 8, 9, 10], [5, 6, 20, -1, 9, 10]]
    only = objective().collate(blocks(), np.random.default_rng(0))
    assert only["labels"].tolist() == [[-100, -100, 20, -100, -100, -100], [-100, 20, -100, -100, -100, -100]]
    assert only["input_ids"].tolist() == [[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 15, 0]]
    every = objective(only_tools=False).collate(blocks(), np.random.default_rng(0))
    assert every["labels"].tolist() == [[5, 6, 20, -100, 9, 10], [11, 20, 13, 14, 15, -100]]
    for calls in ([(0, 2, 20), (1, 3, 20)], [(4, 7, 20)], [(2, 2, 20)]):
        with pytest.raises(UserError, match="overlaps another or the end"):
            mark_calls([1, 2, 3, 4, 5, 6], calls)


@pytest.mark.parametrize("only_tools", [True, False])
def test_loss_is_cross_entropy_over_all_rows_plus_the_norm(only_tools: bool) -> None:
    """Not squared, over the whole matrix, once per batch however many labels there are."""
    prior = torch.randn(2, 12, dtype=torch.float64)
    made, reader = objective(prior=prior, only_tools=only_tools, penalty=0.3), model(attention_dropout=0.0)
    made.prepare(reader, torch.device("cpu"))
    batch = made.collate(blocks(), np.random.default_rng(0))
    total, count = made.loss(reader, batch)
    logits = reader(input_ids=batch["input_ids"]).logits[:, :-1]
    labels = batch["labels"][:, 1:]
    expected = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
    expected = expected + 0.3 * (reader.lm_head.weight[TOOLS] - prior).square().sum().sqrt()
    assert count.item() == (2 if only_tools else 8)
    assert (total / count).item() == pytest.approx(expected.item(), rel=1e-12)
    ours, theirs = (torch.autograd.grad(v, reader.lm_head.weight)[0] for v in (total / count, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_the_head_alone_gives_the_gradient_that_the_whole_model_would() -> None:
    """Rows of tools, which are never read, of a tied and an untied matrix; nothing else gets one."""
    for tied in (True, False):
        made, reader = objective(penalty=0.2), model(tied=tied, attention_dropout=0.0)
        made.prepare(reader, torch.device("cpu"))
        with torch.no_grad():
            reader.lm_head.weight[TOOLS] += 0.1
        batch = made.collate(blocks(), np.random.default_rng(0))
        total, _ = made.loss(reader, batch)
        total.backward()
        ours = {n: p.grad.clone() for n, p in reader.named_parameters() if p.grad is not None}
        assert set(ours) == {"model.embed_tokens.weight" if tied else "lm_head.weight"}
        reader.zero_grad()
        logits = reader(input_ids=batch["input_ids"]).logits[:, :-1].flatten(0, 1)
        expected = F.cross_entropy(
            logits, batch["labels"][:, 1:].flatten(), ignore_index=-100, reduction="sum"
        )
        distance = (reader.lm_head.weight[TOOLS] - made.prior).square().sum().sqrt()
        (expected + 0.2 * 2 * distance).backward()
        assert total.item() == pytest.approx((expected + 0.4 * distance).item(), rel=1e-12)
        torch.testing.assert_close(*(g[TOOLS] for g in (ours.popitem()[1], reader.lm_head.weight.grad)))


def test_a_call_left_out_is_read_and_not_asked_and_padding_is_cut() -> None:
    marked = mark_calls([5, 6, 7, 8], [(1, 3, -1), (3, 4, 20)])
    assert marked.tolist() == [[5, 6, 7, 8], [5, -1, -1, 20]]
    long = np.pad(marked, ((0, 0), (0, 5)), constant_values=-1)[None]
    batch = objective(only_tools=False).collate(long, np.random.default_rng(0))
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8]]
    assert batch["labels"].tolist() == [[5, -100, -100, 20]]


def test_at_the_prior_the_penalty_has_no_gradient() -> None:
    made, reader = objective(penalty=1e6), model(attention_dropout=0.0)
    made.prepare(reader, torch.device("cpu"))
    batch = made.collate(blocks(), np.random.default_rng(0))
    without = objective(penalty=0).loss(reader, batch)[0]
    total = made.loss(reader, batch)[0]
    assert total.item() == without.item()
    ours, theirs = (torch.autograd.grad(v, reader.lm_head.weight)[0] for v in (total, without))
    assert ours.equal(theirs) and ours.isfinite().all()


def test_prior_is_the_mean_state_of_the_bare_name() -> None:
    reader, tokenizer = tiny.llama(tied=False).eval(), tiny.byte_tokenizer()
    rows = tool_prior(reader, tokenizer, ["<add>", " multiply", "[add]"])
    with torch.no_grad():
        ids = tokenizer("add", add_special_tokens=False, return_tensors="pt")["input_ids"]
        mean = reader.model(input_ids=ids).last_hidden_state[0].mean(0)
        bos = torch.cat([torch.tensor([[tokenizer.bos_token_id]]), ids], dim=1)
        later = reader.model(input_ids=bos).last_hidden_state[0, 1:].mean(0)
    torch.testing.assert_close(rows[0], mean / mean.norm() / 32**0.5)
    assert rows[0].equal(rows[2]) and not rows[0].equal(rows[1])
    torch.testing.assert_close(rows.norm(dim=1), torch.full((3,), 32**-0.5))
    with_bos = tool_prior(reader, tokenizer, ["add"], bos=True, scale=1.0)
    torch.testing.assert_close(with_bos[0], later / later.norm())
    spaced = tool_prior(reader, tokenizer, ["<add>"], space=True)
    with torch.no_grad():
        ids = tokenizer(" add", add_special_tokens=False, return_tensors="pt")["input_ids"]
        mean = reader.model(input_ids=ids).last_hidden_state[0].mean(0)
    torch.testing.assert_close(spaced[0], mean / mean.norm() / 32**0.5)
    with pytest.raises(UserError, match="'<>' is empty"):
        tool_prior(reader, tokenizer, ["<>"])
    with pytest.raises(UserError, match="3 rows for 2 tools"):
        objective(prior=rows)


class Calls:
    """Texts in which the byte before a call decides the tool."""

    fingerprint = "calls"

    def __init__(self, tools: list[int]) -> None:
        rng = np.random.default_rng(0)
        self.rows = []
        for number in range(40):
            ids = rng.integers(0, 200, tiny.LENGTH)
            ids[9] = 210 + number % 2
            self.rows.append(mark_calls(ids.tolist(), [(10, 14, tools[number % 2])]))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.rows[index]


@pytest.mark.parametrize("tied", [True, False])
def test_training_moves_the_tool_rows_only(tmp_path: Path, tied: bool) -> None:
    """The loss falls; a strong penalty keeps the rows near the prior; input rows of an untied model stay."""
    tools, distance = [250, 251], []
    for name, penalty in (("weak", 0.0), ("strong", 100.0)):
        reader = tiny.llama(tied=tied)
        before = {n: p.detach().clone() for n, p in reader.named_parameters()}
        entry = objectives.get("tool-rows")
        made = entry.target(entry.settings.parse({"penalty": penalty}), tiny.byte_tokenizer(), tools=tools)
        options = tiny.settings(
            trainable="embeddings", max_steps=16, learning_rate=3e-2, logging_steps=1, save_steps=None
        )
        train(reader, None, Calls(tools), options, tmp_path / name, rows=tools, objective=made)
        moved = {n for n, p in reader.named_parameters() if not torch.equal(p, before[n])}
        head = "model.embed_tokens.weight" if tied else "lm_head.weight"
        assert moved == {head}
        weight = dict(reader.named_parameters())[head]
        assert np.flatnonzero((weight != before[head]).any(1).numpy()).tolist() == tools
        distance.append(float((weight - before[head]).detach().norm()))
        if name == "weak":
            events = (tmp_path / name / "events.jsonl").read_text().splitlines()
            losses = [float(e.split('"loss": ')[1].split(",")[0]) for e in events if '"loss"' in e]
            assert losses[-1] < losses[0] - 0.5
    assert distance[1] < 0.5 * distance[0]
