"""Label suspects: records whose label is probably wrong, by confident learning on predictions of held-out records."""

from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def find_suspects(labels: Ints, probabilities: npt.NDArray[np.floating[Any]]) -> Ints:
    """Finds the records whose label is probably wrong, by Northcutt, Jiang and Chuang, "Confident Learning" (2021).

    A class's threshold is the mean probability that the model gives it on the records with its label. A record counts
    for the most probable of the classes whose thresholds it reaches. If that is not its label, the record is a suspect.
    Suspects are ranked by the normalized margin, which is the label's probability less the largest of the others.

    Args:
      labels: the given labels, int64 [N].
      probabilities: of a model that was not trained on these records, finite, float [N, classes].

    Returns:
      The suspects' positions, the most suspicious first: int64 [M].
    """
    count, classes = probabilities.shape
    rows = np.arange(count)
    own = probabilities[rows, labels]
    thresholds = np.full(classes, np.inf)  # nothing is counted for a class without records
    for label in np.unique(labels):
        thresholds[label] = own[labels == label].mean()
    is_reached = probabilities >= thresholds
    counted = np.where(is_reached, probabilities, -1).argmax(1)
    suspects = np.flatnonzero(is_reached.any(1) & (counted != labels))
    others = probabilities.copy()
    others[rows, labels] = -1
    margins = own - others.max(1)
    return suspects[np.argsort(margins[suspects], kind='stable')]
