"""Rules for the condition of a task: it must be an expression of the Common Expression Language (CEL).

Called by kubeflow/lint/graph.py. The driver compiles and evaluates the condition only when the task's turn comes
(backend/src/v2/expression/expression.go Condition in kubeflow/pipelines), so a mistake fails the run half-way. The
grammar is that of https://github.com/google/cel-spec/blob/master/doc/langdef.md, without the making of messages, for
which a condition has no use. Types are not checked.
"""

import re
from collections.abc import Callable, Iterator

from kfp.pipeline_spec import pipeline_spec_pb2 as pb

from kubeflow.lint.problem import Problem

_TOKEN = re.compile(
    r"""\s*(?://[^\n]*\n\s*)*(?:
    (?P<string>[rRbB]{0,2}(?:'''(?:[^\\]|\\.)*?'''|\"\"\"(?:[^\\]|\\.)*?\"\"\"
        |'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"))
    |(?P<number>0x[0-9a-fA-F]+[uU]?|(?:\d+\.\d+|\.\d+|\d+(?=[eE]))(?:[eE][+-]?\d+)?|\d+[uU]?)
    |(?P<name>[_a-zA-Z]\w*)
    |(?P<sign>&&|\|\||[=!<>]=|[-+*/%<>!?:.,()\[\]{}])
    )""",
    re.VERBOSE | re.DOTALL,
)
_BINARY = ({'||'}, {'&&'}, {'==', '!=', '<', '<=', '>', '>=', 'in'}, {'+', '-'}, {'*', '/', '%'})
"""The operators of two operands, those that bind least first."""
_FUNCTIONS = {'bool', 'bytes', 'double', 'duration', 'dyn', 'has', 'int', 'matches', 'parseJson', 'size', 'string'}
_FUNCTIONS |= {'timestamp', 'type', 'uint'}
_MACROS = {'all', 'exists', 'exists_one', 'filter', 'map'}
_CONSTANTS = {'true', 'false', 'null'}
_VARIABLES = {field.name: field.message_type for field in pb.ExecutorInput.DESCRIPTOR.fields}
_NO_NAMES = {'as', 'break', 'const', 'continue', 'else', 'for', 'function', 'if', 'import', 'in', 'let', 'loop'}
_NO_NAMES |= {'namespace', 'package', 'return', 'var', 'void', 'while'}


class _NoExpression(Exception):
    """The text is no CEL; the message is the end of a sentence that begins with the text."""


class _Parser:
    """Reads a text by recursive descent; a method for each rule of the grammar."""

    def __init__(self, text: str):
        self._tokens = list(_split(text))
        self._place = 0
        self._locals = {token for token in self._tokens if token in _MACROS}  # then a name can be a macro's variable

    def parse(self) -> None:
        self._read_expression()
        if self._peek():
            raise _NoExpression(f'does not end before {self._peek()!r}')

    def _peek(self) -> str:
        return self._tokens[self._place] if self._place < len(self._tokens) else ''

    def _take(self, *wanted: str) -> str:
        token = self._peek()
        if wanted and token not in wanted:
            found = repr(token) if token else 'its end'
            raise _NoExpression(f'has {found} where {" or ".join(wanted)} is needed')
        self._place += 1
        return token

    def _read_expression(self) -> None:
        self._read_binary(0)
        if self._peek() == '?':
            self._take()
            self._read_binary(0)
            self._take(':')
            self._read_expression()

    def _read_binary(self, level: int) -> None:
        if level == len(_BINARY):
            self._read_unary()
            return
        self._read_binary(level + 1)
        while self._peek() in _BINARY[level]:
            self._take()
            self._read_binary(level + 1)

    def _read_unary(self) -> None:
        while self._peek() in ('!', '-'):
            self._take()
        self._read_primary()
        while self._peek() in ('.', '['):
            if self._take() == '.':
                self._read_name()
                if self._peek() == '(':
                    self._read_list('(', ')')
            else:
                self._read_expression()
                self._take(']')

    def _read_primary(self) -> None:
        token = self._peek()
        if token == '(':
            self._take()
            self._read_expression()
            self._take(')')
        elif token == '[':
            self._read_list('[', ']')
        elif token == '{':
            self._read_list('{', '}', self._read_entry)
        elif re.match(r'\.?\d|[rRbB]{0,2}[\'"]', token):  # a number or a text
            self._take()
        else:
            self._read_root()

    def _read_root(self) -> None:
        name = self._read_name()
        if self._peek() == '(':
            if name not in _FUNCTIONS:
                raise _NoExpression(f'calls {name}, which is no function')
            self._read_list('(', ')')
        elif name not in {*_CONSTANTS, *_VARIABLES} and not self._locals:
            raise _NoExpression(f'reads {name!r}; a condition can read {" and ".join(_VARIABLES)}')
        elif name in _VARIABLES and self._peek() == '.':
            self._take()
            known = [field.name for field in _VARIABLES[name].fields]
            field = self._read_name()
            if field not in known:
                raise _NoExpression(f'reads {name}.{field}; {name} has {", ".join(known)}')

    def _read_name(self) -> str:
        name = self._take()
        if not re.fullmatch(r'[_a-zA-Z]\w*', name) or name in _NO_NAMES:
            raise _NoExpression(f'has {name!r} where a value is needed' if name else 'ends where a value is needed')
        return name

    def _read_entry(self) -> None:
        self._read_expression()
        self._take(':')
        self._read_expression()

    def _read_list(self, first: str, last: str, read: Callable[[], None] | None = None) -> None:
        self._take(first)
        while self._peek() != last:
            (read or self._read_expression)()
            if self._peek() != last:
                self._take(',', last)
                if self._peek() == last and last == ')':
                    raise _NoExpression('has a comma before )')
        self._take(last)


def _split(text: str) -> Iterator[str]:
    place = 0
    while text[place:].strip():
        match = _TOKEN.match(text, place)
        if match is None:
            raise _NoExpression(f'has {text[place:].strip()[:20]!r} where a value or an operator is needed')
        yield match[match.lastgroup or 0]
        place = match.end()


def check_condition(where: str, condition: str) -> Iterator[Problem]:
    """Checks that the driver can compile a condition.

    Args:
      where: the path of the task in the document.
      condition: of the task; '' if it has none.
    """
    if not condition:
        return
    try:
        _Parser(condition).parse()
    except (_NoExpression, RecursionError) as error:
        reason = 'is nested too deeply' if isinstance(error, RecursionError) else error
        what = f"It is no expression of CEL: it {reason}. The task's driver fails. Received: {condition}"
        mend = "Write it as kfp's dsl.If does: inputs.parameter_values['NAME'] == 'TEXT'."
        yield Problem('error', f'{where}.triggerPolicy.condition', what, mend)
