"""ServingCheckConfig, apart from the check so that the command line can list it without importing TensorFlow."""

from dataclasses import dataclass
from typing import Literal

MAX_BATCH_SIZES = 250  # each of four signatures is warmed up with each, and TensorFlow Serving takes 1,000 requests


@dataclass(frozen=True, kw_only=True)
class ServingCheckConfig:
    """What a model must answer, how fast and in which memory, to be pushed. The check asks it on the CPU."""

    batch_sizes: tuple[int, ...] = (1, 8, 32)
    """Images a request, ascending: a model server is warmed up with each, every signature is asked with the first and
    the last."""
    max_latency_ms: float = 1000
    """Milliseconds that 99% of the single images may take at most, through `serving_default`."""
    max_size_mb: float = 1000
    """Megabytes of the SavedModel's files."""
    max_memory_mb: float = 8000
    """Megabytes that the process may hold at its peak, TensorFlow included."""
    max_difference: float = 0.05
    """Largest distance of the answers from the Trainer's own predictions, 0-1: half the sum of the absolute differences
    of an image's probabilities, on average over the images, in each signature."""
    requests: int = 30
    """Single images to time."""
    server: Literal['auto', 'off', 'required'] = 'auto'
    """Whether a TensorFlow Serving is asked as well, a `tensorflow_model_server` or Docker's tensorflow/serving image:
    if there is one, never, or always, so that a model is refused where there is none."""

    def __post_init__(self):
        sizes = self.batch_sizes
        if not sizes or sizes[0] < 1 or list(sizes) != sorted(set(sizes)) or len(sizes) > MAX_BATCH_SIZES:
            raise ValueError(
                f'serving_check.batch_sizes must be ascending, from 1, at most {MAX_BATCH_SIZES}. Received: {sizes}'
            )
        for name in ('max_latency_ms', 'max_size_mb', 'max_memory_mb', 'requests'):
            if getattr(self, name) <= 0:
                raise ValueError(f'serving_check.{name} must be over 0. Received: {getattr(self, name)!r}')
        if not 0 <= self.max_difference <= 1:
            raise ValueError(f'serving_check.max_difference must be 0 to 1. Received: {self.max_difference!r}')
