"""The two sides of `rows_speed.py`, each run in a process of its own: our rows, and the peers' rows.

Started by `rows_speed.py` as `python rows_sides.py SIDE METHOD FOLDER K`: one run per line on stdin, one JSON
line per run on stdout, after a first line that says what the peer is, or why there is none.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from rows_inputs import NEEDS

PACKAGES = {"wechsel": "wechsel", "focus": "deepfocus", "omp": "mergekit", "clp": "mergekit"}
"""The peer of each method."""


def ours(method: str, data: dict[str, np.ndarray], k: int) -> np.ndarray:
    """Our rows `(V_target, d)`; what an initialiser does after tokenizers, vectors and donors were read."""
    rows = data["rows"]
    mix = {"wechsel": _our_wechsel, "focus": _our_focus, "omp": _our_omp, "clp": _our_clp}[method](data, k)
    return mix.apply(rows, rng=np.random.default_rng(0))


def _our_wechsel(data: dict[str, np.ndarray], k: int) -> Any:
    from warmstart.vocabulary.aux_space import AuxSpace
    from warmstart.vocabulary.rows.wechsel import nearest_mix

    shape = len(data["target_vectors"]), len(data["rows"])
    target = AuxSpace.of(map(str, range(shape[0])), data["target_vectors"])
    source = AuxSpace.of(map(str, range(shape[1])), data["source_vectors"])
    return nearest_mix(shape, np.arange(shape[0]), source, target)


def _our_focus(data: dict[str, np.ndarray], k: int) -> Any:
    from warmstart.vocabulary.aux_space import AuxSpace
    from warmstart.vocabulary.rows.focus import anchored_mix

    shape, pairs = (len(data["target_vectors"]), len(data["rows"])), data["pairs"]
    target = AuxSpace.of(map(str, range(shape[0])), data["target_vectors"])
    new = np.setdiff1d(np.arange(shape[0]), pairs[:, 0])
    return anchored_mix(shape, new, pairs, target).with_copies(pairs)


def _our_omp(data: dict[str, np.ndarray], k: int) -> Any:
    from warmstart.vocabulary.computed import ComputedMix
    from warmstart.vocabulary.rows.omp import SparseRows, pursuit

    donor, pairs = data["donor"], data["pairs"]
    new = np.setdiff1d(np.arange(len(donor)), pairs[:, 0])
    # as in the peer: the next atom by its product, and always k of them
    same = pursuit(donor[new], donor[pairs[:, 0]], k, tolerance=0.0, unit_atoms=False)
    rows = SparseRows(new, pairs[:, 1], {"input": same, "head": same})
    return ComputedMix.of((len(donor), len(data["rows"])), new, rows).with_copies(pairs)


def _our_clp(data: dict[str, np.ndarray], k: int) -> Any:
    from warmstart.vocabulary.aux_space.neighbours import nearest_by_cosine
    from warmstart.vocabulary.mix import RowMix
    from warmstart.vocabulary.rows.clp import ClpSettings, weights_of

    donor, pairs = data["donor"], data["pairs"]
    new = np.setdiff1d(np.arange(len(donor)), pairs[:, 0])
    column, cosine = nearest_by_cosine(donor[new], donor[pairs[:, 0]], k)
    weight = weights_of(cosine, ClpSettings(helper="given", top_k=k))
    source = pairs[column.ravel(), 1]
    mix = RowMix.from_entries(
        (len(donor), len(data["rows"])), np.repeat(new, column.shape[1]), source, weight.ravel()
    )
    return mix.with_copies(pairs)


class DictTokenizer:
    """As much of a tokenizer as the peers ask for."""

    special_tokens_map: dict[str, str] = {}

    def __init__(self, size: int) -> None:
        self.tokens = [f"t{i}" for i in range(size)]
        self.vocab = {token: i for i, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        return len(self.tokens)

    def convert_ids_to_tokens(self, ids: Any) -> Any:
        return self.tokens[ids] if np.isscalar(ids) else [self.tokens[i] for i in ids]


def theirs(method: str, data: dict[str, np.ndarray], k: int) -> np.ndarray:
    """The peer's rows `(V_target, d)`, by its own functions."""
    if method == "wechsel":
        return _their_wechsel(data)
    return _their_focus(data) if method == "focus" else _token_surgeon(method, data, k)


def _their_wechsel(data: dict[str, np.ndarray]) -> np.ndarray:
    import wechsel

    given = iter((data["source_vectors"], data["target_vectors"]))
    # the package fills a float64 matrix, whatever the vectors' type
    wechsel.get_subword_embeddings_in_word_embedding_space = lambda *args, **kw: (
        next(given).astype(np.float64),
        {},
    )
    method = wechsel.WECHSEL.__new__(wechsel.WECHSEL)
    method.source_embeddings = method.target_embeddings = None
    method.source_transform = method.target_transform = lambda matrix: matrix
    source, target = DictTokenizer(len(data["rows"])), DictTokenizer(len(data["target_vectors"]))
    rows, _ = method.apply(source, target, data["rows"])
    return np.asarray(rows)


def _their_focus(data: dict[str, np.ndarray]) -> np.ndarray:
    import torch
    from deepfocus.focus import focus_additional_token_initialization
    from deepfocus.vocab_helper import NewToken, OverlappingToken, TokenClass

    def token(i: int) -> TokenClass:
        return TokenClass(str(i), i, str(i), str(i), str(i), str(i), True)

    # steps 3 to 6 of its FOCUS(), with the given vectors in place of a fastText model
    vectors, rows = data["target_vectors"], torch.from_numpy(data["rows"])
    known, copied = vectors.any(axis=1), dict(data["pairs"].tolist())
    overlap, new, rare = {}, {}, []
    out = torch.zeros(len(vectors), rows.shape[1])
    for i in range(len(vectors)):
        if i in copied:
            out[i] = rows[copied[i]]
            if known[i]:
                overlap[str(i)] = OverlappingToken([], token(i), rows[copied[i]], vectors[i])
        elif known[i]:
            new[str(i)] = NewToken(token(i), vectors[i])
        else:
            rare.append(i)
    mean, deviation = rows.mean(dim=0), rows.std(dim=0)
    generator = torch.Generator().manual_seed(42)
    for i in rare:
        out[i] = torch.normal(mean, deviation, generator=generator)
    return focus_additional_token_initialization(overlap, new, out, device="cpu").numpy()


def _token_surgeon(method: str, data: dict[str, np.ndarray], k: int) -> np.ndarray:
    """What `mergekit-tokensurgeon` does per matrix, in its default batches of 512 tokens."""
    import torch
    from mergekit.scripts import tokensurgeon

    # it loads both tokenizers once more, for methods that cut tokens into pieces
    no_tokenizer = SimpleNamespace(from_pretrained=lambda *args, **kw: None)
    tokensurgeon.transformers = SimpleNamespace(AutoTokenizer=no_tokenizer)
    kinds = tokensurgeon.ApproximationMethod
    model = SimpleNamespace(model=SimpleNamespace(path="", revision=None))
    options = tokensurgeon.TokenSurgeonOptions.model_construct(
        model=model, donor=model, k=k, batch_size=512, cosine_similarity=True,
        method=kinds.ORTHOGONAL_MATCHING_PURSUIT if method == "omp" else kinds.COMMON_INTERPOLATION,
    )  # fmt: skip
    source = {f"s{i}": i for i in range(len(data["rows"]))}
    for i, j in data["pairs"].tolist():
        del source[f"s{j}"]
        source[f"t{i}"] = j
    rows = tokensurgeon.build_embedding_matrix(
        SimpleNamespace(name="rows"),
        torch.from_numpy(data["rows"]),
        torch.from_numpy(data["donor"]),
        orig_vocab=source,
        donor_vocab={f"t{i}": i for i in range(len(data["donor"]))},
        junk_tokens=[], allow_prefix=False, allow_byte=False, is_lm_head=False, options=options,
    )  # fmt: skip
    return rows.numpy()


def work(side: str, method: str, folder: Path, k: int) -> None:
    """A side's process."""
    results, sys.stdout = sys.stdout, sys.stderr  # the peers print

    def say(**line: Any) -> None:
        print(json.dumps(line), file=results, flush=True)

    data = {name: np.load(folder / f"{name}.npy") for name in NEEDS[method]}
    try:
        _warm_up(side, method)
    except ImportError as error:
        say(missing=f"{error} ({sys.executable})")
        return
    before, package = _peak(), "warmstart" if side == "ours" else PACKAGES[method]
    say(package=f"{package} {importlib.import_module('importlib.metadata').version(package)}")
    for _ in sys.stdin:
        begin, worked = time.perf_counter(), time.process_time()
        rows = (ours if side == "ours" else theirs)(method, data, k)
        seconds, cpu = time.perf_counter() - begin, time.process_time() - worked
        np.save(folder / f"result-{side}.npy", rows)
        del rows  # the next round must not find it in memory
        say(seconds=seconds, cpu=cpu, peak=_peak(), before=before)


def _warm_up(side: str, method: str) -> None:
    """Load the libraries, and compile what compiles on first use, outside of the measured time."""
    rng = np.random.default_rng(0)
    tiny = {
        "rows": np.ones((40, 4), np.float32),
        "pairs": np.array([[0, 0], [1, 1]]),
        "source_vectors": rng.standard_normal((40, 4), dtype=np.float32),
        "target_vectors": rng.standard_normal((8, 4), dtype=np.float32),
        "donor": rng.standard_normal((8, 4), dtype=np.float32),
    }
    if side == "theirs":
        _stand_in_for_fasttext()
    (ours if side == "ours" else theirs)(method, tiny, 2)


def _stand_in_for_fasttext() -> None:
    """Two peers import fastText, which often fails to build; with given vectors nothing calls it."""
    try:
        importlib.import_module("fasttext.util")
    except ImportError:
        package, util, inner = map(ModuleType, ("fasttext", "fasttext.util", "fasttext.FastText"))
        inner._FastText = type("_FastText", (), {})  # type: ignore[attr-defined]
        package.util, package.FastText = util, inner  # type: ignore[attr-defined]
        sys.modules.update({"fasttext": package, "fasttext.util": util, "fasttext.FastText": inner})


def _peak() -> float:
    """Peak resident memory of this process in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # the other figure starts at what the parent process had at the fork
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1 << 20 if sys.platform == "darwin" else 1 << 10)


if __name__ == "__main__":
    work(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
