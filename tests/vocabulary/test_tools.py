"""Tools as tokens that are only written: rows that begin as asked, and texts whose calls are marked."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from vocab_families import FAMILIES, random_model
from vocab_tokenizers import plain, sentences

from warmstart.checkpoint import Lineage, resolve, save_checkpoint
from warmstart.corpus import Document
from warmstart.foundation.errors import UserError
from warmstart.objectives.tool_rows import tool_prior
from warmstart.vocabulary.tool_texts import in_order, tool_texts
from warmstart.vocabulary.tools import (
    AddToolsSettings,
    add_tools,
    joins_space,
    read_tools,
    tool_token,
)

sys.path.append(str(Path(__file__).parents[1] / "training"))
NAMES = ["add", "house", "a long name"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Decoders: tied, untied, and untied with more rows than tokens; an encoder."""
    from transformers import AutoConfig

    root, tokenizer = tmp_path_factory.mktemp("tools"), plain("bpe", 300, 0)
    made = {}
    for name, tied, more in (
        ("tied", True, 0),
        ("untied", False, 0),
        ("padded", False, 9),
        ("masked", True, 0),
    ):
        kind, task, _, sizes = FAMILIES["bert" if name == "masked" else "qwen3"]
        ids = {"bos_token_id": None, "pad_token_id": tokenizer.pad_token_id}
        config = AutoConfig.for_model(
            kind, **sizes, vocab_size=len(tokenizer) + more, tie_word_embeddings=tied, **ids
        )
        model = random_model(config, task, torch.float32)
        save_checkpoint(root / name, model, tokenizer, lineage=Lineage.of("test"))
        made[name] = root / name
    return made


def weights(path: Path) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Input rows, head rows, and all other tensors."""
    model = resolve(str(path)).load_model()
    both = (model.get_input_embeddings().weight, model.get_output_embeddings().weight)
    others = {n: p.detach().numpy() for n, p in model.named_parameters() if all(p is not w for w in both)}
    return both[0].detach().numpy(), both[1].detach().numpy(), others


@pytest.mark.parametrize("rows", ["prior", "mean", "random"])
@pytest.mark.parametrize("kind", ["tied", "untied", "padded"])
def test_only_rows_of_tools_are_new_and_begin_as_asked(
    sources: dict[str, Path], tmp_path: Path, kind: str, rows: Any
) -> None:
    settings = AddToolsSettings(source=str(sources[kind]), tools=NAMES, rows=rows, seed=3)
    made = add_tools(settings, tmp_path / "out")
    tools, old = read_tools(made.path), resolve(str(sources[kind]))
    tokenizer, model = old.load_tokenizer(), old.load_model()
    ids = list(tools.values())
    assert ids == [len(tokenizer) + i for i in range(3)]
    assert made.load_tokenizer().convert_ids_to_tokens(ids) == ["<add>", "<house>", "<a long name>"]
    before, after = weights(sources[kind]), weights(made.path)
    assert after[0].shape[0] == max(before[0].shape[0], len(tokenizer) + 3)
    kept = [i for i in range(len(before[0])) if i not in ids]
    for one, two in zip(before[:2], after[:2], strict=True):
        assert np.array_equal(one[kept], two[kept])
    assert before[2].keys() == after[2].keys()
    assert all(np.array_equal(before[2][name], after[2][name]) for name in before[2])

    pieces = [tokenizer(f" {name}", add_special_tokens=False)["input_ids"] for name in NAMES]
    means = np.stack([before[0][row].mean(0) for row in pieces])
    width = before[0].shape[1]
    if rows == "prior":
        expected = tool_prior(model, tokenizer, NAMES, space=True).numpy()
        assert np.allclose(np.linalg.norm(after[1][ids], axis=1), width**-0.5, rtol=1e-5)
    elif rows == "mean":
        expected = means
    else:
        expected = np.random.default_rng(3).uniform(-1, 1, (3, width)) / np.sqrt(width)
    np.testing.assert_allclose(after[1][ids], expected, atol=1e-6)
    if kind != "tied":
        np.testing.assert_allclose(after[0][ids], means, atol=1e-6)


def test_a_second_set_of_tools_is_added_behind_the_first(sources: dict[str, Path], tmp_path: Path) -> None:
    first = add_tools(AddToolsSettings(source=str(sources["tied"]), tools=["add"]), tmp_path / "one")
    texts = {"<times>": "multiply two numbers"}
    second = add_tools(AddToolsSettings(source=str(first.path), tools=texts), tmp_path / "two")
    size = len(resolve(str(sources["tied"])).load_tokenizer())
    assert read_tools(second.path) == {"add": size, "<times>": size + 1}
    assert second.load_tokenizer().convert_ids_to_tokens(size + 1) == "<times>"
    model, tokenizer = first.load_model(), first.load_tokenizer()
    expected = tool_prior(model, tokenizer, list(texts.values()), space=True)[0]
    torch.testing.assert_close(second.load_model().get_output_embeddings().weight[size + 1], expected)
    assert second.lineage is not None and second.lineage.operation == "add-tools"


@pytest.mark.parametrize(
    ("tools", "words"),
    [
        (["add", " "], "the name ' ' of a tool is empty"),
        (["<>"], "the name '<>' of a tool is empty"),
        (["add", "add"], "'add' is named twice"),
        (["add", "<add>"], "'<add>' is named twice: 'add' is the same token"),
        (["pad"], "'pad' cannot be added: '<pad>' is a token already"),
        ({"add": " "}, "the tool text ' ' is empty"),
        ([], "give exactly one of the two"),
    ],
)
def test_unusable_tools_are_one_sentence(
    sources: dict[str, Path], tmp_path: Path, tools: Any, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        add_tools(AddToolsSettings(source=str(sources["tied"]), tools=tools), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_has_no_tools_says_so(sources: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="this is a masked one"):
        add_tools(AddToolsSettings(source=str(sources["masked"]), tools=NAMES), tmp_path / "out")
    with pytest.raises(UserError, match=r"no tools.*add-tools"):
        read_tools(sources["tied"])
    (tmp_path / "tools.json").write_text(json.dumps({"add": "7"}))
    with pytest.raises(UserError, match="no list of tools"):
        read_tools(tmp_path)


def test_the_space_before_a_name_is_written_where_tokens_hold_it() -> None:
    from training_tiny import byte_tokenizer

    assert joins_space(plain("bpe", 300, 0))
    assert not joins_space(byte_tokenizer())  # a space is a token of its own
    for kind in ("wordpiece", "unigram"):
        assert not joins_space(plain(kind, 300, 0))
    assert tool_token(" <a> ") == "<a>" and tool_token("<>") == "<<>>" and tool_token("a>") == "<a>>"


# ------------------------------------------------------------------------------------------------ texts


def document(text: str, *calls: tuple[int, int, str]) -> Document:
    return Document(text, f"file:{len(text)}", {"calls": [list(call) for call in calls]})


def test_calls_are_marked_at_the_tokens_that_hold_them() -> None:
    """Against a search through every token's characters; the space before a call is no part of it."""
    tokenizer = plain("bpe", 300, 0)
    tools = {"x": 900, "y": 901}
    for text in sentences()[:40]:
        words = [(text.index(w), text.index(w) + len(w)) for w in text.split()[1:5] if text.count(w) == 1]
        if not words:
            continue
        calls = [(a, b, "xy"[i % 2]) for i, (a, b) in enumerate(words)]
        ((ids, labels),) = tool_texts([document(text, *calls)], tokenizer, tools, length=120).rows
        plain_ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        assert ids[1 : len(plain_ids) + 1].tolist() == plain_ids and (ids[len(plain_ids) + 1 :] == -1).all()
        expected = [tokenizer.eos_token_id, *plain_ids]
        for start, stop, name in calls:
            characters = {i for i in range(start, stop) if not text[i].isspace()}
            inside = [1 + i for i, (a, b) in enumerate(offsets) if characters & set(range(a, b))]
            expected[inside[0] : inside[-1] + 1] = [tools[name], *[-1] * (len(inside) - 1)]
        assert labels[: len(expected)].tolist() == expected


def test_examples_limit_what_is_asked_and_hide_the_rest() -> None:
    tokenizer = plain("bpe", 300, 0)
    text, tools = "one two three four", {"x": 900, "y": 901}
    spans = {"one": (0, 3), "two": (4, 7), "three": (8, 13), "four": (14, 18)}
    documents = [
        document(text, (*spans["two"], "x"), (*spans["four"], "y")),
        document(text + ".", (*spans["two"], "x"), (*spans["three"], "x")),
        document(text + "!", (*spans["one"], "x")),
    ]
    every = tool_texts(documents, tokenizer, tools, length=40)
    assert every.counts([900, 901]).tolist() == [4, 1] and len(every) == 3
    two = tool_texts(documents, tokenizer, tools, length=40, examples=2)
    assert two.counts([900, 901]).tolist() == [2, 1] and len(two) == 2
    asked, whole = two.rows[1, 1], every.rows[1, 1]
    changed = np.flatnonzero(asked != whole)
    assert whole[changed].tolist() == [900] and asked[changed].tolist() == [-1]
    only = tool_texts(documents, tokenizer, tools, length=40, only={"y"})
    assert only.counts([900, 901]).tolist() == [0, 1] and len(only) == 1
    assert (
        two.fingerprint != every.fingerprint == tool_texts(documents, tokenizer, tools, length=40).fingerprint
    )


def test_a_long_text_loses_its_end_also_within_a_call() -> None:
    tokenizer = plain("bpe", 300, 0)
    text = "one two three four " * 5 + "five"
    calls = [(4, 13, "x"), (14, 18, "y")]
    size = len(tokenizer("one two", add_special_tokens=False)["input_ids"]) + 1
    (row,) = tool_texts([document(text, *calls)], tokenizer, {"x": 900, "y": 901}, length=size).rows
    assert (row[1] == 900).sum() == 1 and (row[1] == 901).sum() == 0 and (row[0] >= 0).all()
    with pytest.raises(UserError, match="no tool is called"):
        tool_texts([document(text, (90, 95, "x"))], tokenizer, {"x": 900}, length=size)


def test_calls_that_cannot_be_marked() -> None:
    tokenizer = plain("bpe", 300, 0)
    (merged,) = [t for t in tokenizer.get_vocab() if len(t) == 3 and t.isascii() and t.isalpha()][:1]
    assert len(tokenizer(merged, add_special_tokens=False)["input_ids"]) == 1
    with pytest.raises(UserError, match=r"'y' shares a token with the one before it.*file:3"):
        tool_texts([document(merged, (0, 1, "x"), (1, 3, "y"))], tokenizer, {"x": 9, "y": 8}, length=9)
    with pytest.raises(UserError, match=r"has no tool 'hous'.*did you mean 'house'"):
        tool_texts([document("the", (0, 1, "hous"))], tokenizer, {"house": 9, "y": 8}, length=9)
    with pytest.raises(UserError, match="makes nothing of the call of 'x' at 3–4"):
        tool_texts([document("the cat", (3, 4, "x"))], tokenizer, {"x": 9}, length=9)


def test_the_order_is_random_and_depends_on_texts_and_seed_alone() -> None:
    documents = [document(f"text {i}") for i in range(50)]
    first = [d.text for d in in_order(documents, 0)]
    assert first == [d.text for d in in_order(documents[::-1], 0)] != [d.text for d in documents]
    assert first != [d.text for d in in_order(documents, 1)] and sorted(first) == sorted(
        d.text for d in documents
    )
