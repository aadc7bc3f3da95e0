"""Environment variables that TensorFlow and Beam's worker processes read once, when they start."""

import os
from pathlib import Path

_DEFAULTS = {
    # Without this, TensorFlow writes lines on every start that a user can do nothing about.
    'TF_CPP_MIN_LOG_LEVEL': '2',
    # oneDNN's kernels. TensorFlow takes them by default only on CPUs with AVX512. With AVX2 too, steps of training took
    # about half as long with them as with TensorFlow's own in a first trial; no benchmark has measured it yet.
    'TF_ENABLE_ONEDNN_OPTS': '1',
    # Beam tells the worker processes of its multi_processing mode none of its options, but they read this file.
    'PIPELINE_OPTIONS_FILE': str(Path(__file__).with_name('worker_options.json')),
}


def choose_variables() -> dict[str, str]:
    """Returns the variables to set before TensorFlow and Beam are imported; what the user has set stays as it is."""
    return {name: os.environ.get(name, value) for name, value in _DEFAULTS.items()}
