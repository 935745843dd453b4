"""Names: folder before named source before hub; the hub's cache without network."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_checkpoints import poke, same_weights, tiny_model

from warmstart.checkpoint import register_source_resolver, resolve, sources
from warmstart.foundation.errors import UserError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def hub_cache(folder: Path, cache: Path, name: str = "owner/tiny", refs=("main", "v1.0")) -> Path:
    """Lay a checkpoint out as the hub's cache does: blobs named by hash, links in a snapshot, refs."""
    root = cache / f"models--{name.replace('/', '--')}"
    snapshot = root / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (root / "blobs").mkdir()
    (root / "refs").mkdir()
    for ref in refs:
        (root / "refs" / ref).write_text(COMMIT)
    for file in folder.iterdir():
        if file.name == "warmstart.json":
            continue
        data = file.read_bytes()
        large = file.suffix == ".safetensors"
        blob = hashlib.sha256(data).hexdigest() if large else hashlib.sha1(data).hexdigest()
        (root / "blobs" / blob).write_bytes(data)
        (snapshot / file.name).symlink_to(Path("../../blobs") / blob)
    return snapshot


@pytest.fixture
def cache(make, tmp_path, monkeypatch):
    folder = make()
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    snapshot = hub_cache(folder, tmp_path / "hub")
    shutil.rmtree(folder)
    return snapshot


def test_a_cached_hub_model_opens_without_network(cache):
    for name in ("owner/tiny", "owner/tiny@v1.0", f"owner/tiny@{COMMIT}"):
        found = resolve(name)
        assert (found.hub_id, found.name, found.revision) == ("owner/tiny", "owner/tiny", COMMIT)
        assert same_weights(found.load_model(), tiny_model("llama"))
    assert resolve("owner/tiny", revision="v1.0").fingerprint == found.fingerprint


def test_the_cache_is_found_by_its_environment_variables(cache, tmp_path):
    """In a process of its own, since the library reads them once at import."""
    code = "from warmstart.checkpoint import resolve; print(resolve('owner/tiny').load_model().device)"
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "cpu", done.stderr


def test_offline_and_not_cached(cache):
    with pytest.raises(UserError, match=r"not in the local cache.*HF_HUB_OFFLINE=1"):
        resolve("owner/other")
    with pytest.raises(UserError, match=r"owner/tiny@v9.*HF_HUB_OFFLINE=1"):
        resolve("owner/tiny@v9")
    with pytest.raises(UserError, match="two revisions"):
        resolve("owner/tiny@v1.0", revision="main")


def test_a_damaged_blob_is_noticed_by_its_name(cache):
    poke((cache / "model.safetensors").resolve(), "model.norm.weight", 0.125)
    with pytest.raises(UserError, match=r"model\.safetensors .*SHA-256"):
        resolve("owner/tiny")


def test_a_hub_model_without_safetensors(cache):
    (cache / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no safetensors.*hf download owner/tiny.*checkpoint\.convert"):
        resolve("owner/tiny")


@pytest.mark.parametrize(
    "kind, words",
    [
        ("RepositoryNotFoundError", "neither a folder here nor a public model"),
        ("GatedRepoError", "gated"),
        ("RevisionNotFoundError", "has no revision 'r'"),
        ("LocalEntryNotFoundError", "the hub cannot be reached"),
        ("OSError", "cannot be fetched"),
    ],
)
def test_what_the_hub_answers_becomes_one_sentence(monkeypatch, kind, words):
    import huggingface_hub
    from huggingface_hub import constants, errors

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    asked: list[tuple[str, dict]] = []

    def answer(name, **kwargs):
        asked.append((name, kwargs))
        made = OSError("no route") if kind == "OSError" else None
        if made is None:
            cls = getattr(errors, kind)
            made = cls.__new__(cls)  # the constructors want a live response
            Exception.__init__(made, "answer")
        raise made

    monkeypatch.setattr(huggingface_hub, "snapshot_download", answer)
    with pytest.raises(UserError, match=words):
        resolve("owner/model@r")
    name, kwargs = asked[0]
    assert (name, kwargs["revision"]) == ("owner/model", "r")
    from fnmatch import fnmatch

    def fetched(file):
        allowed = any(fnmatch(file, p) for p in kwargs["allow_patterns"])
        return allowed and not any(fnmatch(file, p) for p in kwargs["ignore_patterns"])

    for file in ("model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json"):
        assert fetched(file)
    assert (
        fetched("tokenizer.json") and fetched("config.json") and fetched("vocab.txt") and fetched("README.md")
    )
    for file in (
        "pytorch_model.bin",
        "a.pt",
        "modeling.py",
        "onnx/model.safetensors",
        "model.fp16.safetensors",
    ):
        assert not fetched(file)


def test_an_existing_folder_wins_without_asking_anyone(make, tmp_path, monkeypatch):
    make(name="owner/tiny")
    monkeypatch.chdir(tmp_path)
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: pytest.fail("asked the hub"))
    found = resolve("owner/tiny")
    assert found.hub_id is None and found.name == "tiny"
    shutil.move(tmp_path / "owner", tmp_path / "a@b")
    assert resolve("a@b/tiny").path == Path("a@b/tiny")


def test_named_sources_come_before_the_hub(make, monkeypatch):
    folder = make(name="cached-abc")
    monkeypatch.setattr(sources, "_resolvers", [])
    asked: list[str] = []

    @register_source_resolver
    def named(name: str) -> Path | None:
        asked.append(name)
        return folder if name == "tiny-en" else None

    register_source_resolver(named)
    assert resolve("tiny-en").path == folder
    with pytest.raises(UserError):
        resolve("other")
    assert asked == ["tiny-en", "other"]


def test_paths_are_not_taken_for_hub_ids(tmp_path):
    for text in ("./no/such", "~/no-such-model", str(tmp_path / "x"), "a/b/c", "models/"):
        with pytest.raises(UserError, match="folder does not exist"):
            resolve(text)
    with pytest.raises(UserError, match="folder does not exist"):
        resolve(Path("gpt2"))


def test_what_is_copied_keeps_its_hashes(make, tmp_path):
    folder = make()
    shutil.copytree(folder, tmp_path / "copy")
    assert resolve(tmp_path / "copy").warnings == ()
    assert resolve(tmp_path / "copy").fingerprint == resolve(folder).fingerprint
    record = json.loads((folder / "warmstart.json").read_text())["files"]
    assert set(record) == {p.name for p in folder.iterdir()} - {"warmstart.json"}
    for name, expected in record.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == expected
