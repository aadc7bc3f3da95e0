"""The command line, the configuration, the graph and the local runner."""

import sys
from importlib.util import find_spec

# '-m' is the first argument as long as Python looks for the module that `python -m` names.
if sys.argv[:1] == ['-m'] and find_spec('pydantic') is None:
    sys.stderr.write(
        f'error: {sys.executable} has none of the packages that the pipeline needs; make the environment with '
        '`make env`, then run .venv/bin/python in place of it, or first: source .venv/bin/activate\n'
    )
    raise SystemExit(2)
