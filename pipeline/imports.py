"""Imports the libraries, which takes 10 to 50 s, and reports how far it has come.

What takes the time is the number of modules: TensorFlow, Beam and TFX import some 200 a second, whichever it is.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

from components.progress import track

# Modules that are looked for; tests/pipeline/test_run.py compares the first with a run. Roughly right is enough.
TFX_MODULES = 8_400
BEAM_MODULES = 5_800
TENSORFLOW_MODULES = 4_400
KFP_MODULES = 1_400


class _Counter:
    """A finder that finds nothing: Python asks it first for each module, and it counts them."""

    def __init__(self, advance: Callable[[int], None]):
        self._advance = advance

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Counts a module that is about to be imported."""
        self._advance(1)
        return None


@contextlib.contextmanager
def track_imports(modules: int) -> Iterator[None]:
    """Reports the imports within the context.

    Args:
      modules: about how many modules will be looked for.
    """
    with track('imports', modules, 'modules') as advance:
        counter = _Counter(advance)
        sys.meta_path.insert(0, counter)
        try:
            yield
        finally:
            sys.meta_path.remove(counter)
