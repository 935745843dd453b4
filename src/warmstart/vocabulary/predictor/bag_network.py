"""HyperOFA's network: a bag of word vectors in, a row out (arXiv 2504.21018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from warmstart.foundation.progress import progress
from warmstart.vocabulary.predictor.bag_settings import BagNetworkSettings
from warmstart.vocabulary.predictor.bags import Bags, by_length, thinned


class BagNetwork(nn.Module):
    """BiLSTM over the bag; its last states in both directions -> 2 D -> GELU -> D.

    Args:
        vectors: `(W, v)` word vectors; not trained.
        hidden: Width of one direction.
        layers: Stacked BiLSTMs.
        out: Width D of a row.
        dropout: Between layers and in the output.
    """

    def __init__(self, vectors: np.ndarray, hidden: int, layers: int, out: int, dropout: float) -> None:
        super().__init__()
        self.vectors = torch.from_numpy(vectors)
        self.lstm = nn.LSTM(
            vectors.shape[1],
            hidden,
            layers,
            batch_first=True,
            dropout=dropout if layers > 1 else 0.0,
            bidirectional=True,
        )
        self.leave = nn.Sequential(
            nn.Linear(2 * hidden, 2 * out), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * out, out)
        )

    def forward(self, bags: Sequence[np.ndarray]) -> Tensor:
        """Rows `(n, D)` of n bags of word numbers, none empty."""
        sizes = torch.tensor([len(bag) for bag in bags])
        padded = np.zeros((len(bags), int(sizes.max())), dtype=np.int64)
        for row, bag in zip(padded, bags):
            row[: len(bag)] = bag
        packed = nn.utils.rnn.pack_padded_sequence(
            F.embedding(torch.from_numpy(padded), self.vectors), sizes, batch_first=True, enforce_sorted=False
        )
        _, (last, _) = self.lstm(packed)
        out: Tensor = self.leave(torch.cat([last[-2], last[-1]], dim=-1))
        return out


def bag_loss(found: Tensor, goal: Tensor, *, mix: float, temperature: float) -> Tensor:
    """`mix * L_con + (1 - mix) * L_1`.

    `L_con` is the cross-entropy of finding one's own goal in the batch by
    `cos(found_i, goal_j) / temperature`; `L_1 = mean |found - goal| / mean |goal|`.

    Args:
        found: Predicted rows `(n, D)`.
        goal: True rows `(n, D)`.
        mix: Weight of the contrastive part.
        temperature: Of its softmax.
    """
    cosine = F.normalize(found, dim=-1) @ F.normalize(goal, dim=-1).T
    contrast = F.cross_entropy(cosine / temperature, torch.arange(len(found)))
    distance = (found - goal).abs().mean() / goal.abs().mean()
    return mix * contrast + (1 - mix) * distance


@dataclass
class BagRows:
    """Rows from bags by a network that is trained anew for each matrix (input rows, head rows).

    The paper has tied models only; an untied head gets a network of its own, since its rows mean something
    else.

    Attributes:
        vectors: `(W, v)` word vectors of both languages.
        source: Bags of source tokens.
        target: Bags of target tokens.
        settings: Size and training of the network.
        coordinates: Singular directions in which rows are written; None for the rows themselves.
        seed: Of weights, order, dropout and thinning.
        measured: What the last training found.
    """

    vectors: np.ndarray
    source: Bags
    target: Bags
    settings: BagNetworkSettings
    coordinates: int | None
    seed: int
    measured: dict[str, float | int | None] = field(default_factory=dict)

    def __call__(
        self, ids: np.ndarray, rows: np.ndarray, *, reference: np.ndarray | None, **_: Any
    ) -> np.ndarray:
        """Rows `(len(ids), d)`; computed in float32, whatever the precision of `rows`."""
        known = np.flatnonzero(self.source.sizes > 0)
        if reference is not None:
            known = np.intersect1d(known, reference)
        goal, basis = coordinates_of(rows, reference, self.coordinates)
        network, unit = self.fit(known, goal)
        out = np.empty((len(ids), rows.shape[1]), dtype=rows.dtype)
        with torch.no_grad():
            for part in by_length(self.target.sizes[ids], 512, np.random.default_rng(self.seed)):
                found = network([self.target[int(ids[i])] for i in part]).numpy() * unit
                out[part] = found if basis is None else found @ basis
        return out

    def fit(self, tokens: np.ndarray, goal: np.ndarray) -> tuple[BagNetwork, float]:
        """A network that maps the bags of source `tokens` to `goal` `(V, D)`, and the unit of its output.

        Goals are divided by their mean absolute value first, which changes nothing in the loss but spares
        the network to learn the scale.
        """
        options, rng = self.settings, np.random.default_rng([self.seed, 1])
        sizes = [np.abs(goal[part]).sum(dtype=np.float64) for part in np.array_split(tokens, 64)]
        unit = float(sum(sizes)) / (len(tokens) * goal.shape[1]) or 1.0

        def wanted(chosen: np.ndarray) -> Tensor:
            return torch.from_numpy(goal[chosen].astype(np.float32) / np.float32(unit))

        shuffled = rng.permutation(tokens)
        held_out = shuffled[: round(options.validation * len(tokens))]
        training = shuffled[len(held_out) :]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            network = BagNetwork(
                self.vectors, options.hidden_size, options.num_layers, goal.shape[1], options.dropout
            )
            optimizer = torch.optim.Adam(network.parameters(), lr=options.learning_rate)
            schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=10, gamma=0.95)
            with progress("bags of words", total=max(1, options.epochs)) as task:
                for epoch in range(options.epochs):
                    losses = []
                    for part in by_length(self.source.sizes[training], options.batch_size, rng):
                        chosen = training[part]
                        loss = bag_loss(
                            network([thinned(self.source[int(i)], rng) for i in chosen]),
                            wanted(chosen),
                            mix=options.loss_mix,
                            temperature=options.contrast_temperature,
                        )
                        optimizer.zero_grad(set_to_none=True)
                        loss.backward()
                        optimizer.step()
                        losses.append(float(loss.detach()))
                    schedule.step()
                    task.update(epoch + 1, f"loss {np.mean(losses):.3f}")
        network.eval()
        self.measured = {"bags": len(tokens), "validation_cosine": None}
        if len(held_out):
            with torch.no_grad():
                found = network([self.source[int(i)] for i in held_out])
            cosine = F.cosine_similarity(found, wanted(held_out)).mean()
            self.measured["validation_cosine"] = float(cosine)
        return network, unit


def coordinates_of(
    rows: np.ndarray, reference: np.ndarray | None, count: int | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Left singular vectors `U` `(V, count)` of the rows and `S V^T` `(count, d)`, or the rows and None.

    From the eigenvectors of `rows^T rows`, so that no second matrix of the rows' size is made. Rows outside
    `reference` are not looked at, but get coordinates.
    """
    if count is None:
        return rows, None
    gram = np.zeros((rows.shape[1], rows.shape[1]))
    where = np.arange(len(rows)) if reference is None else reference
    for start in range(0, len(where), 8192):
        part = rows[where[start : start + 8192]].astype(np.float64)
        gram += part.T @ part
    values, axes = np.linalg.eigh(gram)
    kept = axes[:, ::-1][:, :count]
    size = np.sqrt(np.maximum(values[::-1][:count], 1e-12 * values[-1]))
    return rows @ (kept / size).astype(rows.dtype), (kept * size).T.astype(rows.dtype)
