"""ServingCheckConfig, in a file of its own so that the command line can list it without importing TensorFlow."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from components.settings import Settings

MAX_BATCH_SIZES = 166  # each of six signatures is warmed up with each, and TensorFlow Serving takes 1,000 requests

Limit = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, kw_only=True)
class ServingCheckConfig(Settings):
    """What a model must predict, how fast, and in how much memory, to be pushed. The check runs on the CPU."""

    SECTION: ClassVar[str] = 'serving_check'

    batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    """Images in a request, ascending. A model server is warmed up with each size; the check asks every signature with
    the first and the last, and times up to eight of them."""
    max_latency_ms: Limit = 1000.0
    """Milliseconds within which 99% of the requests of one image must be answered, through `serving_default`."""
    max_size_mb: Limit = 1000.0
    """Largest size of the SavedModel's files, in megabytes."""
    max_memory_mb: Limit = 8000.0
    """Largest memory of the process that serves the model at its peak, in megabytes, with TensorFlow included."""
    max_difference: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Largest distance of the predictions from the Trainer's own, 0 to 1: half the sum of the absolute differences of
    an image's probabilities, as the mean over the images, for each signature."""
    requests: Annotated[int, Field(ge=1)] = 30
    """Requests of one image that are timed."""
    server: Literal['auto', 'off', 'required'] = 'auto'
    """Whether a TensorFlow Serving is asked as well: 'auto' if there is one here, a `tensorflow_model_server` or
    Docker's image tensorflow/serving:2.20.0; 'off' never; 'required' always, and a model is refused where there is
    none."""

    def __post_init__(self) -> None:
        sizes = self.batch_sizes
        if not sizes or sizes[0] < 1 or list(sizes) != sorted(set(sizes)) or len(sizes) > MAX_BATCH_SIZES:
            raise ValueError(
                f'serving_check.batch_sizes must be 1 to {MAX_BATCH_SIZES} whole numbers, ascending '
                f'from 1 on. Received: {sizes}'
            )
