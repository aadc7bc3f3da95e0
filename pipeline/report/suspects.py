"""Label suspects: records whose label is probably wrong, by confident learning on predictions of held-out records."""

from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def _count_suspects(labels: Ints, probabilities: npt.NDArray[np.floating[Any]]) -> int:
    """Counts the records that confident learning puts off the diagonal of its joint of given and true labels.

    A class's threshold is the mean probability that the model gives it on the records with its label. A record counts
    for the most probable of the classes whose thresholds it reaches.
    """
    rows = np.arange(len(labels))
    own = probabilities[rows, labels]
    thresholds = np.full(probabilities.shape[1], np.inf)  # nothing is counted for a class without records
    for label in np.unique(labels):
        thresholds[label] = own[labels == label].mean()
    is_reached = probabilities >= thresholds
    counted = np.where(is_reached, probabilities, -1).argmax(1)
    return int((is_reached.any(1) & (counted != labels)).sum())


def find_suspects(labels: Ints, probabilities: npt.NDArray[np.floating[Any]]) -> Ints:
    """Finds the records whose label is probably wrong, by Northcutt, Jiang and Chuang, "Confident Learning" (2021).

    Confident learning says how many there are. They are ranked by the odds that the label is right: the ratio of the
    label's probability to the largest of the other classes', times the mean probability that this other class has on
    the records with the label. So a cat that is taken for a dog, which the model often does, is less suspicious than a
    cat that is taken for a ship. (The paper ranks by the difference of the two probabilities, which is nearly the same
    for all mistakes of a confident model.)

    Args:
      labels: the given labels, int64 [N].
      probabilities: of a model that was not trained on these records, finite, float [N, classes].

    Returns:
      The suspects' positions, the most suspicious first: int64 [M].
    """
    rows = np.arange(len(labels))
    others = probabilities.copy()
    others[rows, labels] = -1
    answers = others.argmax(1)
    confusions = np.zeros((probabilities.shape[1],) * 2)
    for label in np.unique(labels):
        confusions[label] = probabilities[labels == label].mean(0)

    factors = np.stack([probabilities[rows, labels], probabilities[rows, answers], confusions[labels, answers]])
    own, other, usual = np.log(np.maximum(factors, np.finfo(np.float32).tiny))
    order = np.argsort(own - other + usual, kind='stable')
    return np.asarray(order[(own < other)[order]][: _count_suspects(labels, probabilities)])
