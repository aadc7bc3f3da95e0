"""Task conditions (`triggerPolicy.condition`), decided as Kubeflow's driver does (expression/expression.go: Condition).

The driver gives cel-go the fields of an ExecutorInput, whose numbers are all doubles. Where cel-python's operators
differ from cel-go's (common/types), it gets them from here. Two differences are left: cel-go looks at names and types
before it starts, so it refuses an unknown name that is never reached; and `string()` writes numbers as Python does.
"""

import json
import operator
import re
from collections.abc import Callable
from typing import Any

import celpy
from celpy import celtypes
from celpy.evaluation import boolean
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2 as pb

from components.errors import UsageError
from kubeflow.package import Document


def decide_condition(task: str, condition: str, inputs: Document) -> bool:
    """Whether a task is to run.

    Args:
      task: its name, for errors.
      condition: in CEL.
      inputs: of the task's ExecutorInput, parameterValues and artifacts.

    Raises:
      UsageError: the condition is no CEL, fails on these inputs, or is neither true nor false.
    """
    message = json_format.ParseDict({'inputs': inputs, 'outputs': {}}, pb.ExecutorInput())
    fields = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    environment = celpy.Environment()
    try:
        program = environment.program(environment.compile(condition), _FUNCTIONS)
        result = program.evaluate({name: celpy.json_to_cel(value) for name, value in fields.items()})
    except celpy.CELParseError as error:
        raise UsageError(f'The condition of {task} is no CEL: {condition}') from error
    except celpy.CELEvalError as error:
        reason = re.split(r' \(in | for | applied ', str(error.args[0]))[0]  # the rest is cel-python's own state
        raise UsageError(f'The condition of {task} fails on its inputs: {condition} ({reason})') from error
    if not isinstance(result, celtypes.BoolType):
        raise UsageError(f'The condition of {task} is neither true nor false: {condition}')
    return bool(result)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, celtypes.BoolType)


def _unwrap(value: Any) -> Any:
    """Numbers as Python's own, which compare across their types by value; others as they are."""
    if not _is_number(value):
        return value
    return float(value) if isinstance(value, float) else int(value)


def _are_comparable(left: Any, right: Any) -> bool:
    """Values of one type, which an operator may have turned into Python's own, and numbers."""
    is_one_type = isinstance(left, type(right)) or isinstance(right, type(left))
    return is_one_type or (_is_number(left) and _is_number(right))


def _is_equal(left: Any, right: Any) -> bool:
    return _are_comparable(left, right) and _unwrap(left) == _unwrap(right)


def _is_in(item: Any, container: Any) -> bool:
    if isinstance(container, str):
        raise TypeError('no such overload')
    return any(_is_equal(item, element) for element in container)


def _order(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def compare_alike(left: Any, right: Any) -> bool:
        if not _are_comparable(left, right):
            raise TypeError('no such overload')
        return compare(_unwrap(left), _unwrap(right))

    return boolean(compare_alike)


def _calculate(operation: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Integers and doubles do not mix."""

    def calculate_alike(left: Any, right: Any) -> Any:
        if _is_number(left) and _is_number(right) and isinstance(left, float) != isinstance(right, float):
            raise TypeError('no such overload')
        return operation(left, right)

    return calculate_alike


def _parse_json(text: Any) -> Any:
    return celpy.json_to_cel(json.loads(text, parse_int=float))


_FUNCTIONS = {
    '_==_': boolean(_is_equal),
    '_!=_': boolean(lambda left, right: not _is_equal(left, right)),
    '_in_': boolean(_is_in),
    '_<_': _order(operator.lt),
    '_<=_': _order(operator.le),
    '_>_': _order(operator.gt),
    '_>=_': _order(operator.ge),
    '_+_': _calculate(operator.add),
    '_-_': _calculate(operator.sub),
    '_*_': _calculate(operator.mul),
    '_/_': _calculate(operator.truediv),
    'parseJson': _parse_json,
}
