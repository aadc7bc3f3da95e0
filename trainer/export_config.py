"""ExportConfig, and what an export says of itself; apart from trainer/export.py so that neither needs TensorFlow.

The command line lists every setting, and importing TensorFlow takes seconds.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

EXPORT_FILE = 'export.json'  # an ExportReport, in the SavedModel's assets.extra folder, which model servers pass over


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What the SavedModel computes with. Read by trainer/export.py; travels in the Trainer's `custom_config`."""

    precision: Literal['float32', 'bfloat16'] = 'float32'
    """Of the served weights and arithmetic; bfloat16 wants a CPU or GPU that has it, and must agree with float32."""
    min_agreement: float = 0.995
    """Least share of val images, 0-1, to which bfloat16 must give the class that float32 gives, or the run stops."""

    def __post_init__(self):
        if not 0 <= self.min_agreement <= 1:
            raise ValueError(f'export.min_agreement must be 0 to 1. Received: {self.min_agreement!r}')


class ExportReport(NamedTuple):
    """What was exported; written as JSON into the SavedModel."""

    precision: str
    """ExportConfig's."""
    agreement: float | None
    """Share of val images, 0-1, that get the class float32 gives them; None for float32 itself, not measured."""
    count: int
    """Images compared."""
