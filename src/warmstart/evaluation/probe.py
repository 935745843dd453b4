"""A small classifier of bags of vectors, with the vectors frozen or learned along."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from warmstart.evaluation.mdl import Predict
from warmstart.evaluation.probe_settings import ProbeSettings
from warmstart.foundation.errors import UserError


class BagProbe:
    """Learns `p(y | bag) = softmax(W f(mean of the bag's vectors) + b)` from the first t examples.

    The output layer begins at zero, so an unlearned probe says that all classes are equally likely. A tenth
    of the t examples (the last ones, at least one) is held out; training stops when its loss has not fallen
    for some passes, and the parameters with the lowest one stay, be they those at the start: vectors that say
    nothing cost hardly more than the uniform code. So everything about the probe follows from the examples
    that were sent before.

    Vectors are centred and brought to a mean square of one first, over those in use, so neither their length
    nor a component that all share matters.

    Args:
        vectors: `(V, d)` floats; their precision is that of the probe.
        bags: Indices of vectors per example, at least one each.
        labels: `(n,)` class numbers.
        classes: Number of classes.
        settings: Size and training.
        tuned: Whether the vectors are learned too. Only those seen are changed (lazy Adam).
    """

    def __init__(
        self,
        vectors: np.ndarray,
        bags: Sequence[Sequence[int]],
        labels: np.ndarray,
        classes: int,
        settings: ProbeSettings,
        *,
        tuned: bool = False,
    ) -> None:
        if len(bags) != len(labels) or not all(len(bag) for bag in bags):
            raise UserError("each label needs a bag of at least one vector", where="probe")
        used, places = np.unique(np.concatenate([np.asarray(bag) for bag in bags]), return_inverse=True)
        table = torch.from_numpy(standardised(vectors[used]))
        lengths = np.array([len(bag) for bag in bags])
        inside = np.arange(lengths.max()) < lengths[:, None]
        ids = np.full(inside.shape, len(used))
        ids[inside] = places
        self._ids = torch.from_numpy(ids)
        self._shares = torch.from_numpy(inside / lengths[:, None]).to(table.dtype)
        self._table = torch.cat([table, table.new_zeros(1, table.shape[1])])  # the last one fills short bags
        self._labels = torch.from_numpy(np.asarray(labels, dtype=np.int64))
        self._classes, self._settings, self._tuned = classes, settings, tuned
        self._means = None if tuned else self._bag_means(self._table, slice(None))

    def learn(self, count: int) -> Predict:
        """What a probe that has learned from the first `count` examples says of others."""
        model = self._fit(count)

        def predict(start: int, stop: int) -> np.ndarray:
            with torch.no_grad():
                logits = self._logits(model, slice(start, stop))
                return F.log_softmax(logits.double(), dim=1).numpy()

        return predict

    def _fit(self, count: int) -> dict[str, nn.Parameter]:
        options = self._settings
        generator = torch.Generator().manual_seed(options.seed)
        model = self._start(generator)
        held = slice(count - max(1, count // 10), count)
        optimizers = self._optimizers(model)
        best, kept, since = self._loss(model, held), _copy(model), 0
        for _ in range(options.max_epochs if held.start else 0):
            for batch in torch.randperm(held.start, generator=generator).split(options.batch_size):
                loss = F.cross_entropy(self._logits(model, batch), self._labels[batch])
                loss.backward()
                for optimizer in optimizers:
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
            now = self._loss(model, held)
            since = 0 if now < best else since + 1
            if now < best:
                best, kept = now, _copy(model)
            elif since == options.patience:
                break
            else:
                for group in (group for optimizer in optimizers for group in optimizer.param_groups):
                    group["lr"] /= 2
        return kept

    def _start(self, generator: torch.Generator) -> dict[str, nn.Parameter]:
        width, hidden = self._table.shape[1], self._settings.hidden_size
        zeros = self._table.new_zeros
        model = {"weight": zeros(self._classes, hidden or width), "bias": zeros(self._classes)}
        if hidden:
            draw = torch.randn(hidden, width, generator=generator, dtype=self._table.dtype)
            model |= {"inner": draw * (2 / width) ** 0.5, "inner_bias": zeros(hidden)}
        if self._tuned:
            model["table"] = self._table.clone()
        return {name: nn.Parameter(value) for name, value in model.items()}

    def _optimizers(self, model: dict[str, nn.Parameter]) -> list[torch.optim.Optimizer]:
        rate = self._settings.learning_rate
        dense = [value for name, value in model.items() if name != "table"]
        found: list[torch.optim.Optimizer] = [torch.optim.Adam(dense, lr=rate)]
        return [*found, torch.optim.SparseAdam([model["table"]], lr=rate)] if self._tuned else found

    def _logits(self, model: dict[str, nn.Parameter], chosen: Any) -> Tensor:
        means = self._bag_means(model["table"], chosen) if self._means is None else self._means[chosen]
        if "inner" in model:
            means = F.relu(F.linear(means, model["inner"], model["inner_bias"]))
        return F.linear(means, model["weight"], model["bias"])

    def _bag_means(self, table: Tensor, chosen: Any) -> Tensor:
        return F.embedding_bag(
            self._ids[chosen],
            table,
            mode="sum",
            per_sample_weights=self._shares[chosen],
            sparse=table.requires_grad,
            padding_idx=len(table) - 1,
        )

    def _loss(self, model: dict[str, nn.Parameter], chosen: slice) -> float:
        with torch.no_grad():
            return float(F.cross_entropy(self._logits(model, chosen), self._labels[chosen]))


def standardised(vectors: np.ndarray) -> np.ndarray:
    """Vectors `(V, d)` less their mean, over the root of the mean square of what remains (0 stays 0)."""
    wide = vectors.astype(np.float64)
    wide -= wide.mean(axis=0)
    scale = np.sqrt(np.square(wide).mean())
    return (wide / scale if scale > 0 else wide).astype(vectors.dtype)


def _copy(model: dict[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    return {name: nn.Parameter(value.detach().clone(), requires_grad=False) for name, value in model.items()}
