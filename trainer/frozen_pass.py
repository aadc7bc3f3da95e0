"""FrozenPass: the frozen layers run once for several trainings that differ only in what is above them."""

import contextlib
import functools
import time
from collections.abc import Iterator
from typing import Any

import keras

from trainer.config import TrainerConfig
from trainer.model import split_at_border
from trainer.training_rows import TrainingRows, prepare_rows


class FrozenPass:
    """Takes the place of `prepare_rows` in `train_model`, and shares the frozen pass between trainings.

    The trainings must have the same images, frozen layers and settings of the cache. The first one prepares and fills
    the rows as it would alone, and the others get the same rows. What is cached is kept until the context ends.

    Args:
      stack: Ends with the last training.
    """

    def __init__(self, stack: contextlib.ExitStack):
        self.seconds = 0.0
        """Seconds that deciding, measuring and filling took together; near 0 if nothing is cached."""
        self._stack = stack
        # By what decides the rows: the number of layers below the border, and of augmented views.
        self._prepared: dict[tuple[int, int], TrainingRows] = {}

    @contextlib.contextmanager
    def prepare(
        self, model: keras.Model, config: TrainerConfig, *arguments: Any, epochs: int
    ) -> Iterator[TrainingRows]:
        """Does what `prepare_rows` does, with its arguments."""
        trunk, top = split_at_border(model)
        key = len(trunk.layers) if trunk else 0, min(config.cached_views, epochs)
        if key not in self._prepared:
            with self._count_seconds():
                rows = self._stack.enter_context(prepare_rows(model, config, *arguments, epochs=epochs))
            self._prepared[key] = rows._replace(fill=functools.cache(functools.partial(self._fill, rows)))
        rows = self._prepared[key]
        yield rows._replace(model=model if rows.cache == 'off' else top)

    def _fill(self, rows: TrainingRows) -> None:
        with self._count_seconds():
            rows.fill()

    @contextlib.contextmanager
    def _count_seconds(self) -> Iterator[None]:
        begin = time.monotonic()
        yield
        self.seconds += time.monotonic() - begin
