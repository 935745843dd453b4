from __future__ import annotations

from pathlib import Path

import pytest

from warmstart.corpus import open_corpus
from warmstart.foundation.errors import UserError


def test_several_texts_are_one_corpus(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(f"first {i}" for i in range(300)))
    (tmp_path / "b.txt").write_text("\n".join(f"second {i}" for i in range(300)))
    alone = {n: open_corpus(tmp_path / f"{n}.txt") for n in "ab"}
    both = open_corpus({"path": str(tmp_path / "a.txt"), "also": [str(tmp_path / "b.txt")]})
    for split in ("train", "valid", "test"):
        apart = [d.text for n in "ab" for d in alone[n].documents(split)]  # type: ignore[arg-type]
        assert [d.text for d in both.documents(split)] == apart  # type: ignore[arg-type]
    assert both.fingerprint not in {alone["a"].fingerprint, alone["b"].fingerprint}
    turned = open_corpus({"path": str(tmp_path / "b.txt"), "also": [str(tmp_path / "a.txt")]})
    assert turned.fingerprint != both.fingerprint


def test_official_and_drawn_splits_do_not_mix(tmp_path: Path) -> None:
    official = tmp_path / "official"
    official.mkdir()
    for name in ("train", "valid", "test"):
        (official / f"{name}.txt").write_text("one\ntwo\n")
    (tmp_path / "plain.txt").write_text("three\nfour\n")
    with pytest.raises(UserError, match="official splits"):
        open_corpus({"path": str(official), "also": [str(tmp_path / "plain.txt")]})
