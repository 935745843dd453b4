"""For every contract check a method that breaks it, so that no check can pass by accident."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from warmstart.corpus.document import Document
from warmstart.corpus.named_set import NamedSet, datasets
from warmstart.corpus.reading import readers
from warmstart.foundation.registry import Entry
from warmstart.foundation.settings import Settings
from warmstart.objectives import objectives
from warmstart.training.optimizer import optimizers
from warmstart.training.schedule import schedules
from warmstart.vocabulary.mix import Noise, RowMix
from warmstart.vocabulary.rows._base import initialisers

_counter = itertools.count()


class Undocumented(Settings):
    """One option without a description."""

    heat: float = 1.0


class Careless(Settings):
    """Swallows unknown options."""

    model_config = {**Settings.model_config, "extra": "ignore"}  # type: ignore[misc]


def _method(target: Any) -> Any:
    """The target, with a docstring that satisfies the common checks."""
    target.__doc__ = target.__doc__ or "Breaks one rule on purpose."
    return target


def _like(entry: Entry[Any], target: Any, **changes: Any) -> Entry[Any]:
    return replace(entry, target=_method(target), **changes)


def _schedule(target: Any, *tags: str) -> Entry[Any]:
    return _like(schedules.get("constant"), target, tags=frozenset(tags))


def _reader(target: Any) -> Entry[Any]:
    return _like(readers.get("txt"), target)


def _initialiser(target: Any, *tags: str) -> Entry[Any]:
    return _like(initialisers.get("normal"), target, tags=frozenset(tags))


def _objective(base: str, *tags: str, **members: Any) -> Entry[Any]:
    entry = objectives.get(base)
    return _like(entry, type("Broken", (entry.target,), members), tags=entry.tags | set(tags))


def _optimizer(step: Any, *tags: str) -> Entry[Any]:
    """AdamW with another `step`, called as `step(optimizer, original)`."""

    def make(context: Any, settings: Any) -> Any:
        optimizer = optimizers.get("adamw").target(context, settings)
        original = optimizer.step
        optimizer.step = lambda: step(optimizer, original)
        return optimizer

    return _like(optimizers.get("adamw"), make, tags=frozenset(tags))


def _uphill(optimizer: Any, step: Any) -> None:
    for parameter in _learning(optimizer):
        parameter.grad.neg_()
    step()


def _own_rate(optimizer: Any, step: Any) -> None:
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    step()


def _no_decay(optimizer: Any, step: Any) -> None:
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.0
    step()


def _eager(optimizer: Any, step: Any) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = parameter.detach() * 0 if parameter.grad is None else parameter.grad
    step()


def _noisy(optimizer: Any, step: Any) -> None:
    import torch

    for parameter in _learning(optimizer):
        parameter.grad += torch.randn_like(parameter)
    step()


def _forgetful(optimizer: Any, step: Any) -> None:
    optimizer.count = getattr(optimizer, "count", 0) + 1  # not in the state
    for parameter in _learning(optimizer):
        parameter.grad += optimizer.count
    step()


def _learning(optimizer: Any) -> list[Any]:
    return [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


def _stateful(progress: float, **_: float) -> float:
    return min(1.0, next(_counter) / 1e9)


def _whole(file: Any, settings: Any) -> Any:
    return [Document(text, f"{file.id}:{i}") for i, text in enumerate(file.path.read_text().splitlines())]


def _appends(file: Any, settings: Any) -> Any:
    with file.path.open("a") as stream:
        stream.write("\nmore")
    yield from readers.get("txt").target(file, settings)


def _plain_open(file: Any, settings: Any) -> Any:
    for number, text in enumerate(file.path.read_text(encoding="latin-1").splitlines()):
        yield Document(text, f"{file.id}:{number}")


def _fails_on_empty(file: Any, settings: Any) -> Any:
    assert file.path.stat().st_size > 0
    yield from readers.get("txt").target(file, settings)


def _half(context: Any, _: Any) -> RowMix:
    rows = np.arange(context.shape[0])
    weights = csr_matrix((np.full(len(rows), 0.5), (rows, rows * 0)), shape=context.shape)
    return RowMix(weights, np.zeros(len(rows), dtype=bool))


def _copies(context: Any, column: int) -> RowMix:
    rows = np.arange(context.shape[0])
    return RowMix.from_entries(context.shape, rows, rows * 0 + column)


def _global_random(context: Any, _: Any) -> RowMix:
    return _copies(context, int(np.random.randint(0, 200)))


class Stubborn(RowMix):
    """Does not let rows be copied into it."""

    def with_copies(self, pairs: Any) -> RowMix:
        """Ignores the pairs."""
        return self


def _stubborn(context: Any, _: Any) -> RowMix:
    mix = _copies(context, 0)
    return Stubborn(mix.weights, mix.fallback)


def _in_place(context: Any, _: Any) -> RowMix:
    context.rows *= 2
    return _copies(context, 0)


def _needs_silently(context: Any, _: Any) -> RowMix:
    return _copies(context, len(context.dictionary))


def _precision(context: Any, _: Any) -> RowMix:
    return _copies(context, context.rows.dtype.itemsize)


def _all_drawn(context: Any, _: Any, kind: str = "normal") -> RowMix:
    count = context.shape[0]
    return RowMix(csr_matrix(context.shape), np.ones(count, dtype=bool), noise=Noise(kind))  # type: ignore[arg-type]


def _negative(context: Any, _: Any) -> RowMix:
    rows = np.repeat(np.arange(context.shape[0]), 2)
    weight = np.tile([2.0, -1.0], context.shape[0])
    return RowMix.from_entries(context.shape, rows, np.tile([0, 1], context.shape[0]), weight)


def _without_labels(self: Any, blocks: Any, rng: Any) -> Any:
    batch = type(self).__mro__[1].collate(self, blocks, rng)
    return batch | {"labels": batch["labels"] * 0 - 100}


def _reversed_labels(self: Any, blocks: Any, rng: Any) -> Any:
    batch = type(self).__mro__[1].collate(self, blocks, rng)
    return batch | {"labels": batch["labels"].flip(1)}


def _unseeded(self: Any, blocks: Any, rng: Any) -> Any:
    return type(self).__mro__[1].collate(self, blocks, np.random.default_rng(next(_counter)))


def _unmasked(self: Any, blocks: Any, rng: Any) -> Any:
    import torch

    batch = type(self).__mro__[1].collate(self, blocks, rng)
    asked = batch["labels"] != -100
    return batch | {"input_ids": torch.where(asked, batch["labels"], batch["input_ids"])}


def _kept_text(self: Any, blocks: Any, rng: Any) -> Any:
    import torch

    batch = type(self).__mro__[1].collate(self, blocks, rng)
    return batch | {"input_ids": torch.from_numpy(blocks.astype("int64"))}


def _doubled(self: Any, model: Any, batch: Any) -> Any:
    total, count = type(self).__mro__[1].loss(self, model, batch)
    return 2 * total, count


def _dead(self: Any, model: Any, batch: Any) -> Any:
    total, count = type(self).__mro__[1].loss(self, model, batch)
    return 0 * total, count


def _empty_family() -> type[NamedSet]:
    class Empty(NamedSet):
        """A family without members."""

    return Empty


def undocumented(progress: float, **_: float) -> float:  # its docstring is missing on purpose
    return 0.0


BROKEN: dict[tuple[str, str], list[Entry[Any]]] = {
    ("schedule", "has-a-docstring"): [replace(schedules.get("linear"), target=undocumented)],
    ("schedule", "names-its-source"): [
        replace(schedules.get("linear"), title="", arxiv=""),
        replace(schedules.get("linear"), arxiv="see the paper"),
    ],
    ("schedule", "has-a-plain-name"): [replace(schedules.get("linear"), name="Linear_Decay")],
    ("schedule", "documents-its-settings"): [replace(schedules.get("linear"), settings=Undocumented)],
    ("schedule", "refuses-unknown-settings"): [replace(schedules.get("linear"), settings=Careless)],
    ("schedule", "stays-between-zero-and-one"): [_schedule(lambda p, **_: 1.5 * p)],
    ("schedule", "is-continuous"): [_schedule(lambda p, **_: float(p > 0.5))],
    ("schedule", "is-pure"): [_schedule(_stateful)],
    ("schedule", "warms-up"): [_schedule(lambda p, **_: 1.0)],
    ("schedule", "ends-at-the-floor"): [_schedule(lambda p, **_: 1.0, "decays")],
    ("reader", "claims-a-suffix"): [
        replace(readers.get("txt"), tags=frozenset()),
        replace(readers.get("txt"), name="other", tags=frozenset({"suffix:.txt"})),
    ],
    ("reader", "streams-documents"): [
        _reader(_whole),
        _reader(lambda file, settings: itertools.islice(readers.get("txt").target(file, settings), 2)),
    ],
    ("reader", "leaves-the-file-alone"): [_reader(_appends)],
    ("reader", "reads-compressed-files-alike"): [_reader(_plain_open)],
    ("reader", "refuses-bytes-that-are-no-text"): [_reader(_plain_open)],
    ("reader", "empty-file-has-no-documents"): [_reader(_fails_on_empty)],
    ("dataset", "lists-its-members"): [_like(datasets.get("python-stdlib"), _empty_family())],
    ("initialiser", "fills-every-wanted-row"): [_initialiser(_half)],
    ("initialiser", "is-deterministic-for-a-seed"): [_initialiser(_global_random)],
    ("initialiser", "copies-special-tokens-by-role"): [_initialiser(_stubborn)],
    ("initialiser", "leaves-its-inputs-alone"): [_initialiser(_in_place)],
    ("initialiser", "leaves-global-randomness-alone"): [_initialiser(_global_random)],
    ("initialiser", "says-what-it-lacks"): [_initialiser(_needs_silently)],
    ("initialiser", "does-not-depend-on-precision"): [_initialiser(_precision)],
    ("initialiser", "mixes-real-rows"): [_initialiser(_all_drawn, "mix")],
    ("initialiser", "ignores-source-rows-without-a-token"): [
        _initialiser(lambda context, _: _copies(context, context.shape[1] - 1), "mix")
    ],
    ("initialiser", "weights-are-convex"): [_initialiser(_negative, "convex")],
    ("initialiser", "draws-with-the-seed"): [
        _initialiser(lambda context, _: _all_drawn(context, _, "mean"), "fallback")
    ],
    ("objective", "states-its-task"): [_objective("causal", task="other")],
    ("objective", "collates-valid-batches"): [_objective("causal", collate=_without_labels)],
    ("objective", "is-deterministic"): [_objective("masked", collate=_unseeded)],
    ("objective", "predicts-the-text"): [_objective("causal", collate=_reversed_labels)],
    ("objective", "hides-what-it-asks"): [
        _objective("causal", targets=lambda self, labels: labels),
        _objective("masked", collate=_unmasked),
        _objective("span", collate=_kept_text),
    ],
    ("objective", "loss-is-that-of-transformers"): [_objective("causal", loss=_doubled)],
    ("objective", "gradient-reaches-every-layer"): [_objective("causal", loss=_dead)],
    ("objective", "draws-differ"): [_objective("causal", "random")],
    ("optimizer", "goes-downhill"): [_optimizer(_uphill)],
    ("optimizer", "takes-the-rate-of-the-moment"): [_optimizer(_own_rate)],
    ("optimizer", "decays-like-adamw"): [_optimizer(_no_decay)],
    ("optimizer", "leaves-what-has-no-gradient"): [_optimizer(_eager)],
    ("optimizer", "is-the-same-again"): [_optimizer(_noisy)],
    ("optimizer", "resumes-exactly"): [_optimizer(_forgetful)],
    ("optimizer", "keeps-less-than-adamw"): [_optimizer(lambda _, step: step(), "lean")],
}
