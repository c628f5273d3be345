"""The text of a config, read without executing it.

mmengine writes the config of a run into each checkpoint as Python text. What
mmengine writes consists of literals. So does the text of mmdet 1.x, but for
names that the text itself defines.
"""

import ast
import math
import operator
import re
import warnings
from collections.abc import Callable
from typing import Any

from mmdet_longtail.errors import LongTailError, check, one_line

CONSTRUCTORS: dict[str, Callable] = {
    kind.__name__: kind for kind in (dict, list, tuple, set, float)
}
OPERATORS: dict[type, Callable] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
LARGEST = 20_000_000  # characters; names can multiply the size of a text
LONGEST_LINE = 60
LONGEST_REPETITION = 100_000
WAY_OUT = '--trust-config executes it, for files of your own'


def parse_config(text: str) -> dict[str, Any]:
    """Return the values that a config assigns, by name.

    Supported are literals, ``dict()`` and the like, earlier names, sums of
    equal types, repetitions, and arithmetic.

    Raises:
        LongTailError: If the text is not Python, or a line is anything else.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of invalid escapes
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise LongTailError(f'is not Python ({one_line(error)})') from None
    values = {'inf': math.inf, 'nan': math.nan}  # as mmengine writes them
    evaluator = _Evaluator(values)
    assigned = {}
    for statement in tree.body:
        try:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    check(name != '_base_', 'reads another file')
                    assigned[name] = values[name] = evaluator.evaluate(value)
                case ast.Expr(ast.Constant()):
                    pass  # a docstring
                case _:
                    raise LongTailError('is not an assignment')
        except (
            LongTailError,
            TypeError,
            ValueError,
            ArithmeticError,
            RecursionError,
        ) as error:
            number = evaluator.line or statement.lineno
            lines = re.split(r'\r\n?|\n', text)
            line = lines[number - 1].strip()[:LONGEST_LINE]
            raise LongTailError(
                f'has more than literals in line {number}, {line!r} '
                f'({one_line(error)}); {WAY_OUT}'
            ) from None
    return assigned


class _Evaluator:
    """Evaluates the expressions of one text.

    Args:
        values (dict[str, Any]): Values of the names so far.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.size = 0
        self.line = 0  # that cannot be evaluated

    def evaluate(self, node: Any) -> Any:
        """Return the value of an expression.

        Raises:
            LongTailError: If it is more than literals, or too large.
        """
        evaluate = self.evaluate
        match node:
            case ast.Constant():
                return node.value
            case ast.List() | ast.Tuple() | ast.Set():
                kind = CONSTRUCTORS[type(node).__name__.lower()]
                return kind(map(evaluate, node.elts))
            case ast.Dict():
                result: dict[Any, Any] = {}
                for key, value in zip(node.keys, node.values):
                    own = evaluate(value)
                    result |= own if key is None else {evaluate(key): own}
                return result
            case ast.Call(func=ast.Name(id=name)) if name in CONSTRUCTORS:
                given: dict[str, Any] = {}
                for keyword in node.keywords:
                    own = evaluate(keyword.value)
                    given |= {keyword.arg: own} if keyword.arg else own
                return CONSTRUCTORS[name](*map(evaluate, node.args), **given)
            case ast.Name(id=name) if name in self.values:
                return self._bounded(self.values[name])
            case ast.UnaryOp(op=ast.UAdd() | ast.USub()):
                return OPERATORS[type(node.op)](evaluate(node.operand))
            case ast.BinOp() if type(node.op) in OPERATORS:
                left, right = evaluate(node.left), evaluate(node.right)
                check(
                    _is_computable(left, node.op, right),
                    'neither numbers nor a sum of equal types',
                )
                return self._bounded(OPERATORS[type(node.op)](left, right))
        self.line = node.lineno
        raise LongTailError('it would have to be executed')

    def _bounded(self, value: Any) -> Any:
        self.size += len(repr(value))
        check(self.size < LARGEST, 'too large')
        return value


def _is_computable(left: Any, operation: ast.operator, right: Any) -> bool:
    """Check that an operation is arithmetic, a sum or a short repetition."""
    match left, operation, right:
        case int() | float(), _, int() | float():
            return True
        case str() | list() | tuple(), ast.Add(), _:
            return type(left) is type(right)
        case str() | list() | tuple(), ast.Mult(), int():
            return len(repr(left)) * right < LONGEST_REPETITION
    return False
