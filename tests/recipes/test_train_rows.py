"""Step `train-rows`: checkpoint in, checkpoint out, and only the rows of new tokens differ."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "vocabulary"))
from vocab_extended import extended
from vocab_families import FAMILIES, random_model
from vocab_tokenizers import plain, sentences

from warmstart.checkpoint import Lineage, resolve, save_checkpoint
from warmstart.foundation.errors import UserError
from warmstart.recipes.operations.train_rows import TrainRowsSettings
from warmstart.recipes.runner import Runner
from warmstart.vocabulary.settings import TransplantSettings
from warmstart.vocabulary.transplant import transplant

pytestmark = pytest.mark.usefixtures("one_thread")


def checkpoints(folder: Path, *, tied: bool, target: Any = None) -> dict[str, Any]:
    """A random decoder, and the same with new tokens whose rows are means of pieces; text for both."""
    from transformers import AutoConfig

    source, longer = extended()
    kind, task, _, sizes = FAMILIES["qwen3"]
    config = AutoConfig.for_model(
        kind, **sizes, vocab_size=len(source), tie_word_embeddings=tied, bos_token_id=None, pad_token_id=None
    )
    model = random_model(config, task, torch.float32)
    save_checkpoint(folder / "old", model, source, lineage=Lineage.of("test"))
    (target or longer).save_pretrained(folder / "tok")
    settings = TransplantSettings(
        source=str(folder / "old"), tokenizer=str(folder / "tok"), initialiser="mean-of-pieces"
    )
    transplant(settings, folder / "new")
    (folder / "text.txt").write_text("\n".join(sentences()))
    return {
        "source": str(folder / "new"),
        "reference": str(folder / "old"),
        "corpus": {"path": str(folder / "text.txt"), "unit": "line"},
        "snippets_per_token": 6,
        "min_snippets": 4,
        "block_size": 16,
        "learning_rate": 3e-3,
        "eval_max_bytes": 400,
        "eval_points": [0.5],
        "max_steps": 12,
    }


def tensors(path: Path) -> dict[str, np.ndarray]:
    return {name: p.detach().numpy() for name, p in resolve(str(path)).load_model().named_parameters()}


def changed_rows(before: np.ndarray, after: np.ndarray) -> list[int]:
    return np.flatnonzero((before.view(np.int32) != after.view(np.int32)).any(1)).tolist()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("objective", ["token-distillation", "vocabulary-kl", "causal"])
def test_only_new_rows_change(tmp_path: Path, objective: str, tied: bool) -> None:
    """Also the head rows of an untied model, by each objective; the loss falls."""
    given = checkpoints(tmp_path, tied=tied) | {"objective": objective}
    artifact = Runner(tmp_path / "cache").step("train-rows", given)
    before, after = tensors(tmp_path / "new"), tensors(artifact)
    source, target = extended()
    new = list(range(len(source), len(target)))
    vocabulary = {"model.embed_tokens.weight"} if tied else {"model.embed_tokens.weight", "lm_head.weight"}
    for name in before:
        if name in vocabulary:
            assert changed_rows(before[name], after[name]) == [i for i in new if i != target.mask_token_id]
        else:
            assert np.array_equal(before[name], after[name]), name
    record = json.loads((artifact / "warmstart.json").read_text())["lineage"]
    assert record["operation"] == "train-rows" and len(record["parents"]) == 2
    assert record["measured"]["rows trained"] == record["measured"]["new tokens"]
    points = json.loads((artifact / "training.json").read_text())["points"]
    assert points[-1]["train_loss"] < points[1]["train_loss"]


def test_a_foreign_vocabulary_is_aligned_by_offsets(tmp_path: Path) -> None:
    """Another tokenizer altogether: shared tokens keep their rows, all others learn from the old model."""
    other = plain("bpe", 340, 1)
    given = checkpoints(tmp_path, tied=False, target=other) | {"rare": "train", "objective": "vocabulary-kl"}
    artifact = Runner(tmp_path / "cache").step("train-rows", given)
    before, after = tensors(tmp_path / "new"), tensors(artifact)
    measured = json.loads((artifact / "warmstart.json").read_text())["lineage"]["measured"]
    changed = changed_rows(before["lm_head.weight"], after["lm_head.weight"])
    assert len(changed) == measured["rows trained"] > 20
    assert measured["rows kept for want of text"] == measured["new tokens"] - len(changed)


def test_rare_tokens_keep_their_rows_or_get_written_text(tmp_path: Path) -> None:
    given = checkpoints(tmp_path, tied=True) | {"snippets_per_token": 200, "max_steps": 3}
    measured = {}
    for rare in ("keep", "train", "generate"):
        artifact = Runner(tmp_path / "cache").step("train-rows", {**given, "rare": rare, "min_snippets": 60})
        measured[rare] = json.loads((artifact / "warmstart.json").read_text())["lineage"]["measured"]
    assert 0 < measured["keep"]["rows trained"] < measured["train"]["rows trained"]
    assert measured["generate"]["snippets"] > measured["train"]["snippets"] == measured["keep"]["snippets"]


def test_one_pass_over_the_snippets_without_a_budget() -> None:
    settings = TrainRowsSettings.parse({"source": "a", "reference": "b", "corpus": "c"})
    assert settings.loop().num_train_epochs == 1 and settings.loop().trainable == "embeddings"
    more = TrainRowsSettings.parse({"source": "a", "reference": "b", "corpus": "c", "max_steps": 3})
    assert more.loop().num_train_epochs is None and more.loop().max_steps == 3


def test_what_cannot_be_trained_is_said(tmp_path: Path) -> None:
    given = checkpoints(tmp_path, tied=True)
    runner = Runner(tmp_path / "cache")
    with pytest.raises(UserError, match="no token that the reference lacks"):
        runner.step("train-rows", {**given, "source": given["reference"]})
    with pytest.raises(UserError, match="is for masked models"):
        runner.step("train-rows", {**given, "objective": "masked"})
    (tmp_path / "text.txt").write_text("\n".join(str(i) for i in range(50)))
    with pytest.raises(UserError, match=r"none of the .* new tokens occurs"):
        runner.step("train-rows", given)


def test_points_may_measure_the_divergence_that_the_step_measures(tmp_path: Path) -> None:
    """On a curve and by the step `divergence`, before and after: the same number, and it falls."""
    given = checkpoints(tmp_path, tied=True) | {"evaluation": "divergence", "eval_split": "test"}
    given |= {"objective": "vocabulary-kl", "eval_max_bytes": 3000, "max_steps": 30}
    runner = Runner(tmp_path / "cache")
    artifact = runner.step("train-rows", given)
    points = json.loads((artifact / "training.json").read_text())["points"]
    measure = {key: given[key] for key in ("reference", "corpus", "eval_max_bytes")} | {"alignment": "merge"}
    for path, point in ((given["source"], points[0]), (str(artifact), points[-1])):
        (file,) = runner.step("divergence", measure | {"source": path}).glob("*.json")
        found = json.loads(file.read_text())
        assert found["kl_after_new"] == pytest.approx(point["bpb"], rel=1e-4)
        assert found["after_new"] >= found["new_tokens"] > 10
    assert points[-1]["bpb"] < 0.9 * points[0]["bpb"]
    measured = json.loads((artifact / "warmstart.json").read_text())["lineage"]["measured"]
    assert measured["divergence before"] == points[0]["bpb"]
    with pytest.raises(UserError, match="no token that the reference lacks"):
        runner.step("divergence", measure | {"source": given["reference"]})
