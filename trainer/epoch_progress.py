"""Reports how far a training has come: within the epoch and its validation, and in the whole phase."""

import contextlib
from collections.abc import Callable
from typing import Any

import keras

from components.progress import track


class EpochProgress(keras.callbacks.Callback):
    """Reports the images of each epoch, of each validation, and of all epochs together.

    The forecast for the whole phase counts validation images like training images, though they take less time. From the
    second epoch on this makes no difference, because the speed is then that of both.

    Args:
      phase: The phase's name.
      epochs: The number of the last epoch.
      first_epoch: The epoch, from 0, at which this attempt at the training begins.
      train_count, val_count: Images in an epoch, and in its validation.
      batch_size: Images in a batch, of all replicas together.
    """

    def __init__(self, phase: str, epochs: int, *, first_epoch: int, train_count: int, val_count: int, batch_size: int):
        super().__init__()
        self._phase, self._epochs, self._first_epoch = phase, epochs, first_epoch
        self._train_count, self._val_count, self._batch_size = train_count, val_count, batch_size
        self._whole, self._part = contextlib.ExitStack(), contextlib.ExitStack()
        self._advance_whole: Callable[[int], None] = lambda images: None
        self._advance_part: Callable[[int], None] = lambda images: None
        self._epoch = self._done = 0  # images of the part

    def on_train_begin(self, logs: Any = None) -> None:
        per_epoch = self._train_count + self._val_count
        work = track(self._phase, self._epochs * per_epoch, done=self._first_epoch * per_epoch)
        self._advance_whole = self._whole.enter_context(work)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch
        self._begin_part(f'{self._phase} epoch {epoch + 1} of {self._epochs}', self._train_count)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._reach(batch, self._train_count)

    def on_test_begin(self, logs: Any = None) -> None:
        self._part.close()
        self._begin_part(f'validation of epoch {self._epoch + 1} of {self._epochs}', self._val_count)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self._reach(batch, self._val_count)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._part.close()

    def on_train_end(self, logs: Any = None) -> None:
        self._whole.close()

    def _begin_part(self, what: str, count: int) -> None:
        self._done = 0
        self._advance_part = self._part.enter_context(track(what, count))

    def _reach(self, batch: int, count: int) -> None:
        """Reports the images up to the end of a batch; Keras names only the last of those that it runs at once."""
        images = min(count, (batch + 1) * self._batch_size) - self._done
        self._done += images
        self._advance_part(images)
        self._advance_whole(images)
