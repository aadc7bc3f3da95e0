"""Gives the linter's tests the cases of their own module."""

import pytest

CASES = {'error_case': 'ERRORS', 'warning_case': 'WARNINGS', 'valid_case': 'VALID'}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs a test with an argument of CASES once for each entry of the module's dictionary of that name."""
    for argument in CASES.keys() & set(metafunc.fixturenames):
        cases = getattr(metafunc.module, CASES[argument])
        metafunc.parametrize(argument, cases.values(), ids=cases.keys())
