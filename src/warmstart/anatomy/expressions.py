"""A small, closed expression language over config keys, so that family tables stay data."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

_BINARY: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}


def evaluate(expression: str | int | float | bool, names: Mapping[str, Any]) -> Any:
    """Value of `expression` with config keys as variables; a key that is absent is None.

    Constants, `+ - * / // % **`, comparisons, `in`, `and`, `or`, `not`, `a if b else c` and tuples exist;
    calls, attributes and subscripts do not, so a table can never run code.

    Raises:
        ValueError: The text is not such an expression.
        TypeError, ZeroDivisionError: The values do not fit, for example arithmetic on an absent key.
    """
    if not isinstance(expression, str):
        return expression
    return _value(_parse(expression), names)


def variables(expression: str | int | float | bool) -> tuple[str, ...]:
    """Names that `expression` reads, in order of appearance."""
    if not isinstance(expression, str):
        return ()
    found = [node for node in ast.walk(_parse(expression)) if isinstance(node, ast.Name)]
    return tuple(dict.fromkeys(node.id for node in sorted(found, key=lambda node: node.col_offset)))


@lru_cache(maxsize=1024)
def _parse(expression: str) -> ast.expr:
    try:
        return ast.parse(expression.strip(), mode="eval").body
    except SyntaxError:
        raise ValueError(f"not an expression: {expression!r}") from None


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return names.get(name)
        case ast.Tuple(elts=items):
            return tuple(_value(item, names) for item in items)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _BINARY[type(op)](_value(left, names), _value(right, names))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _value(operand, names)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, names)
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _BINARY:
            return _BINARY[type(op)](_value(left, names), _value(right, names))
        case ast.BoolOp(op=op, values=values):
            result: Any = None
            for item in values:
                result = _value(item, names)
                if bool(result) is isinstance(op, ast.Or):
                    return result
            return result
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return _value(body if _value(test, names) else orelse, names)
    raise ValueError(f"not allowed in a family table: {ast.unparse(node)}")
