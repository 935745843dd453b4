"""What a transplant's record says about the checkpoints and files that its initialiser used."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vocab_donors import save_donor
from vocab_families import save_source
from vocab_tokenizers import STYLES

from warmstart.checkpoint import Checkpoint, Lineage, resolve
from warmstart.checkpoint.inputs import content_hash, inputs_of
from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings
from warmstart.vocabulary.rows.clp import ClpSettings
from warmstart.vocabulary.rows.token_adapt import TokenAdaptSettings
from warmstart.vocabulary.rows.zett import ZettSettings
from warmstart.vocabulary.settings import TransplantSettings
from warmstart.vocabulary.transplant import transplant

TARGET = STYLES["bpe"](seed=1)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source, a model with the target tokenizer, an encoder, and vectors of target tokens."""
    folder = tmp_path_factory.mktemp("world")
    save_source(folder / "source", "gpt_neox", True)
    save_source(folder / "reader", "bert", True)
    rows = np.random.default_rng(0).standard_normal((len(TARGET), 8)).astype(np.float32)
    save_donor(folder / "model", TARGET, rows)
    vectors(folder / "some.npz", seed=0)
    vectors(folder / "others.npz", seed=1)
    return folder


def vectors(file: Path, seed: int) -> None:
    names = sorted(TARGET.get_vocab(), key=TARGET.get_vocab().__getitem__)
    rows = np.random.default_rng(seed).standard_normal((len(names), 8)).astype(np.float32)
    np.savez(file, words=np.array(names), vectors=rows)


def made(world: Path, out: Path, **options: Any) -> Checkpoint:
    TARGET.save_pretrained(out.parent / "tokenizer")
    given = {"source": str(world / "source"), "tokenizer": str(out.parent / "tokenizer"), **options}
    return transplant(TransplantSettings.parse(given), out)


def recorded(checkpoint: Checkpoint) -> Lineage:
    found = resolve(checkpoint.path).lineage
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("method", "setting", "lent"),
    [("clp", "helper", "model"), ("omp", "donor", "model"), ("token-adapt", "encoder", "reader")],
)
def test_a_checkpoint_that_lends_rows_is_a_parent(
    world: Path, method: str, setting: str, lent: str, tmp_path: Path
) -> None:
    after = made(world, tmp_path / "out", initialiser={"name": method, setting: str(world / lent)})
    source, other = recorded(after).parents
    assert (source.role, source.fingerprint) == ("source", resolve(world / "source").fingerprint)
    assert (other.role, other.name, other.fingerprint) == (setting, lent, resolve(world / lent).fingerprint)
    assert other.lineage is not None and other.lineage.operation == "test"
    assert list(recorded(after).data) == ["tokenizer"]


def test_a_file_of_vectors_is_recorded_by_its_content(world: Path, tmp_path: Path) -> None:
    found = []
    for number, file in enumerate(
        (world / "some.npz", tmp_path / "moved" / "some.npz", world / "others.npz")
    ):
        if number == 1:
            file.parent.mkdir()
            shutil.copy(world / "some.npz", file)
        (tmp_path / str(number)).mkdir()
        after = made(
            world, tmp_path / str(number) / "out", initialiser={"name": "focus", "vectors": str(file)}
        )
        found.append(recorded(after).data)
        assert len(recorded(after).parents) == 1
    assert list(found[0]) == ["tokenizer", "vectors some.npz"] and found[0] == found[1]
    assert found[2]["vectors others.npz"] != found[0]["vectors some.npz"]


def test_all_files_of_a_method_and_the_pairs_are_recorded(world: Path, tmp_path: Path) -> None:
    (tmp_path / "words.tsv").write_text("a\tb\n")
    (tmp_path / "sentences.tsv").write_text("a b\tb a\n")
    files = {"file": str(world / "some.npz"), "codebook": str(world / "others.npz")}
    pairs = {
        "dictionary": str(tmp_path / "words.tsv"),
        "parallel": str(tmp_path / "sentences.tsv"),
    }
    data = recorded(made(world, tmp_path / "out", initialiser={"name": "features", **files}, **pairs)).data
    names = ["tokenizer", "words.tsv", "sentences.tsv", "file some.npz", "codebook others.npz"]
    assert list(data) == names and all(data.values()) and len(set(data.values())) == len(names)


def test_a_hypernetwork_is_known_by_its_files_and_not_by_when_it_was_made(tmp_path: Path) -> None:
    found = []
    for weights, record in ((b"a", "monday"), (b"a", "tuesday"), (b"b", "monday")):
        folder = tmp_path / weights.decode() / record / "net"
        (folder / "inner").mkdir(parents=True)
        (folder / "hypernetwork.safetensors").write_bytes(weights)
        (folder / "inner" / "config.json").write_text("{}")
        (folder / "warmstart.json").write_text(record)
        (folder / ".lock").write_text(record)
        parents, data = inputs_of(ZettSettings(hypernetwork=str(folder)))
        assert not parents and list(data) == ["hypernetwork net"]
        found.append(data["hypernetwork net"])
    assert found[0] == found[1] != found[2] and len(found[0]) == 32
    (tmp_path / "a" / "monday" / "net" / "inner" / "config.json").rename(
        tmp_path / "a" / "monday" / "net" / "config.json"
    )
    assert content_hash(tmp_path / "a" / "monday" / "net") != found[0]  # names of files count


class Inner(Settings):
    table: str | None = None
    """A file."""


class Outer(Settings):
    inner: Inner = Inner()
    """Settings inside settings."""


def test_settings_inside_settings_count_and_chosen_words_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("auto", "words", "fasttext"):
        (tmp_path / name).mkdir()
    assert inputs_of(TokenAdaptSettings(compose="words")) == ([], {})
    (tmp_path / "t.txt").write_text("x")
    ((key, value),) = inputs_of(Outer(inner=Inner(table="t.txt")))[1].items()
    assert key == "inner.table t.txt" and value == content_hash(tmp_path / "t.txt")
    assert inputs_of(Outer(inner=Inner(table="x" * 300))) == ([], {})


def test_what_is_no_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="checkpoint folder does not exist"):
        inputs_of(ClpSettings(helper=str(tmp_path / "nothing")))


def test_two_texts_of_one_name_are_both_recorded(world: Path, tmp_path: Path) -> None:
    texts = {}
    for setting, words in (("corpus", "some words"), ("source_corpus", "other words")):
        file = tmp_path / setting / "text.txt"
        file.parent.mkdir()
        file.write_text("\n".join(f"{words} {number}" for number in range(99)))
        texts[setting] = str(file)
    data = recorded(made(world, tmp_path / "out", initialiser="mean-of-pieces", **texts)).data
    label = next(name.removeprefix("source_corpus ") for name in data if name.startswith("source_corpus "))
    assert data[label] != data[f"source_corpus {label}"]
