"""The ONNX model that a SavedModel carries with `export.onnx`: where it is, and how well the two agree.

The Trainer writes both files into the SavedModel (`trainer.onnx_export`), and so a version has them too. The Pusher
reads the report, for the model card and for `versions`.
"""

import json
from pathlib import Path
from typing import NamedTuple

from components.places import Place

ONNX_FILE = Path('assets.extra') / 'model.onnx'  # in a SavedModel; model servers do not read that folder
ONNX_REPORT_FILE = Path('assets.extra') / 'onnx.json'  # an OnnxReport, in a SavedModel


class OnnxReport(NamedTuple):
    """How an ONNX model agrees with the SavedModel that it lies in; written as JSON beside it."""

    opset: int
    """The version of ONNX's operators that the model uses."""
    agreement: float
    """Share of val images, 0 to 1, to which both give the same label."""
    largest_difference: float
    """Largest difference between two probabilities of the same class of the same val image, 0 to 1."""
    images: int
    """Val images that were compared."""

    def describe(self) -> str:
        """Says it in a sentence without a full stop."""
        return (
            f'{ONNX_FILE} (opset {self.opset}) has the same label as the SavedModel for {self.agreement:.2%} of '
            f'{self.images:,} val images, and probabilities that differ by at most {self.largest_difference:.1g}'
        )


def read_onnx_report(saved_model: Place) -> OnnxReport | None:
    """Reads the report of a SavedModel's ONNX model; None if it has no ONNX model.

    Args:
      saved_model: path or URI of the SavedModel's folder.
    """
    path = saved_model / ONNX_REPORT_FILE
    return OnnxReport(**json.loads(path.read_text(encoding='utf-8'))) if path.exists() else None
