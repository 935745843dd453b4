"""Classification of texts from frozen vectors: what does a model know before anyone has taught it a task?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from warmstart.foundation.errors import UserError


class Scores(BaseModel):
    """How well labels are told apart, beside what a guess without looking reaches."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    accuracy: float
    """Share of texts with the right label."""
    macro_f1: float
    """Mean over labels, each counted alike, of `2 tp / (2 tp + fp + fn)`."""
    chance: float
    """Accuracy of answering the most frequent label of the training texts every time."""
    chance_f1: float
    """Macro F1 of the same answer."""


@dataclass(frozen=True)
class Classifier:
    """`p(label | x) = softmax(((x - shift) / scale) W + b)`.

    Attributes:
        labels: `(k,)` in sorted order.
        usual: The most frequent label of the training texts.
        shift: `(d,)` mean of the training vectors.
        scale: `(d,)` their deviation; 1 where it is zero.
        weights: W, `(d, k)`.
        bias: b, `(k,)`.
        decay: Weight decay that it was fitted with.
    """

    labels: list[str]
    usual: str
    shift: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    decay: float

    def log_probabilities(self, vectors: np.ndarray) -> np.ndarray:
        """`(n, k)` in nats."""
        return _log_softmax((vectors - self.shift) / self.scale @ self.weights + self.bias)

    def predict(self, vectors: np.ndarray) -> list[str]:
        """The most probable label of each vector `(n, d)`."""
        return [self.labels[i] for i in self.log_probabilities(vectors).argmax(axis=1)]


def fit(vectors: np.ndarray, labels: Sequence[str], decay: float) -> Classifier:
    """Multinomial logistic regression on standardised vectors, to the minimum.

    `loss = mean_i -log p(y_i | x_i) + decay / 2 ||W||^2`, the bias free; strictly convex in W, solved by
    L-BFGS in float64 from zero, so nothing is random. Vectors are standardised by the training set's mean and
    deviation: models whose hidden states differ in size are judged alike.

    Args:
        vectors: `(n, d)`.
        labels: One per vector, at least two different ones.
        decay: Positive.

    Raises:
        UserError: Fewer than two labels, another number of labels than vectors, or vectors not finite.
    """
    from scipy.optimize import minimize

    wide = _checked(vectors, labels)
    names, goal = np.unique(np.array(labels), return_inverse=True)
    if len(names) < 2:
        raise UserError("a classifier needs texts of two labels at least", where="classification")
    shift, scale = wide.mean(axis=0), wide.std(axis=0)
    scale = np.where(scale > 1e-12 * np.abs(shift).max(initial=1.0), scale, 1.0)
    x, (count, width), classes = (wide - shift) / scale, wide.shape, len(names)
    hot = np.zeros((count, classes))
    hot[np.arange(count), goal] = 1.0

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w, b = flat[: width * classes].reshape(width, classes), flat[width * classes :]
        logs = _log_softmax(x @ w + b)
        wrong = (np.exp(logs) - hot) / count
        value = -(logs * hot).sum() / count + decay / 2 * np.square(w).sum()
        return value, np.concatenate([(x.T @ wrong + decay * w).ravel(), wrong.sum(axis=0)])

    found = minimize(
        loss,
        np.zeros((width + 1) * classes),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 2000, "maxfun": 4000, "gtol": 1e-6, "ftol": 1e-12},
    ).x
    return Classifier(
        [str(name) for name in names],
        str(names[np.bincount(goal).argmax()]),
        shift,
        scale,
        found[: width * classes].reshape(width, classes),
        found[width * classes :],
        decay,
    )


def fit_best(
    train: tuple[np.ndarray, Sequence[str]],
    valid: tuple[np.ndarray, Sequence[str]],
    decays: Sequence[float] = (1e-3, 1e-2, 1e-1, 1.0),
) -> Classifier:
    """The classifier of the decay whose mean log-probability of the `valid` labels is highest.

    Labels that only `valid` holds do not count.
    """
    best, classifier = -np.inf, None
    for decay in decays:
        made = fit(*train, decay)
        vectors, labels = known(made, *valid)
        place = [made.labels.index(label) for label in labels]
        value = float(made.log_probabilities(vectors)[np.arange(len(place)), place].mean())
        if classifier is None or value > best:
            best, classifier = value, made
    assert classifier is not None
    return classifier


def known(classifier: Classifier, vectors: np.ndarray, labels: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Vectors and labels without the labels that the classifier has never seen.

    Raises:
        UserError: None is left.
    """
    kept = [i for i, label in enumerate(labels) if label in set(classifier.labels)]
    if not kept:
        raise UserError(
            f"the texts have none of the labels {', '.join(classifier.labels[:5])} …",
            where="classification",
            fix="test on texts with the labels that were learned",
        )
    return vectors[kept], [labels[i] for i in kept]


def scores(classifier: Classifier, vectors: np.ndarray, labels: Sequence[str]) -> Scores:
    """Accuracy and macro F1 of a classifier, and of its most frequent label.

    Args:
        classifier: Fitted on other texts.
        vectors: `(n, d)`.
        labels: Right ones; texts with a label that the classifier has never seen are left out.
    """
    vectors, labels = known(classifier, _checked(vectors, labels), labels)
    answers, guesses = classifier.predict(vectors), [classifier.usual] * len(labels)
    return Scores(
        accuracy=accuracy(answers, labels),
        macro_f1=macro_f1(answers, labels),
        chance=accuracy(guesses, labels),
        chance_f1=macro_f1(guesses, labels),
    )


def accuracy(answers: Sequence[str], labels: Sequence[str]) -> float:
    """Share of equal ones."""
    return float(np.mean(np.array(answers) == np.array(labels)))


def macro_f1(answers: Sequence[str], labels: Sequence[str]) -> float:
    """Mean F1 over all labels that are right or answered somewhere; a label never right nor hit has 0."""
    given, right = np.array(answers), np.array(labels)
    names = np.unique(np.concatenate([given, right]))
    hits = np.array([np.sum((given == name) & (right == name)) for name in names])
    said = np.array([np.sum(given == name) + np.sum(right == name) for name in names])
    return float(np.mean(2 * hits / said))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def _checked(vectors: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    if vectors.ndim != 2 or len(vectors) != len(labels) or not len(labels):
        raise UserError(
            f"{len(labels)} labels need as many vectors, got {vectors.shape}", where="classification"
        )
    wide = vectors.astype(np.float64)
    if not np.isfinite(wide).all():
        raise UserError("some vectors hold numbers that are not finite", where="classification")
    return wide
