"""What TFX hands to executors and drivers, as types of their arguments."""

from typing import Any

from tfx import types

Artifacts = dict[str, list[types.Artifact]]
"""The artifacts of each input, or of each output, by its key."""
Properties = dict[str, Any]
"""The execution properties of a component by their keys."""
