"""What a function does, as one canonical text: its bytecode, and all that this names (ADR 14).

What is loaded is looked at, not its source: a table counts as it has become, whoever filled it, and so do closures and
default arguments. Left out is what cannot change what the function does: comments, docstrings, layout, annotations, and
what it does not name. What cannot be told in full is refused, so that one text never stands for two behaviours.

Another release of Python may compile to other bytecode, and then makes another text. Not looked into are packages other
than the function's own, and messages beyond their fields.
"""

from __future__ import annotations

import dis
import sys
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor
from google.protobuf.message import Message

from cqrs.snapshots.messages import schema_of

_LITERALS = frozenset(
    (type(None), bool, int, float, complex, str, bytes, type(...), Decimal, date, datetime, timedelta)
)
"""Types whose `repr` is all that there is to a value, and the same in every process."""

_BEHAVIOUR_FLAGS = 0x3FF
"""Those of a code object's flags that say how it runs; the others tell of docstrings and annotations."""

_UNTOLD_CODE = frozenset(("IMPORT_NAME", "STORE_GLOBAL", "DELETE_GLOBAL"))
_UNTOLD_BUILTINS = frozenset(("__import__", "eval", "exec", "globals"))
"""What code names while it runs, or changes for its next run, cannot be told beforehand."""


class Untold(Exception):
    """What a function does cannot be told in full. The message names the reason."""


def behaviour_of(function: object) -> str:
    """The canonical text. The same in every process of one release of Python.

    A function may name functions of its own package, messages and enums of protobuf, constants, tables of all these,
    and whatever other packages have.

    Raises:
        Untold: it is no plain function, or names something else, as a class or a module of its own package.
    """
    if not isinstance(function, FunctionType):
        raise Untold(f"{function!r} is no plain function")
    return f"{sys.implementation.cache_tag} {_Teller(function.__module__.partition('.')[0]).tell(function)}"


class _Teller:
    """Tells values of one package. What it meets again is a number: functions and tables may name each other."""

    def __init__(self, package: str) -> None:
        self._package = package
        self._met: dict[int, int] = {}

    def tell(self, value: object) -> str:
        # By exact type: subclasses may behave in their own way.
        if type(value) in _LITERALS:
            return repr(value)
        if type(value) is tuple:
            return f"({', '.join(map(self.tell, value))})"
        if type(value) is frozenset or type(value) is set:
            return f"{{{', '.join(sorted(map(self.tell, value)))}}}"
        if isinstance(value, Message):
            return f"{self.tell(type(value))} {value.SerializeToString(deterministic=True).hex()}"
        if type(value) is dict or type(value) is list or (type(value) is FunctionType and self._is_own(value)):
            return self._once(value)
        return self._by_name(value)

    def _by_name(self, value: object) -> str:
        if isinstance(descriptor := getattr(value, "DESCRIPTOR", None), Descriptor | EnumDescriptor):
            return f"{descriptor.full_name} of {schema_of([descriptor])}"
        if isinstance(value, type | FunctionType | BuiltinFunctionType | ModuleType) and not self._is_own(value):
            return _name(value)
        raise Untold(f"{value!r} is nothing that can be told")

    def _is_own(self, value: object) -> bool:
        return _name(value).partition(".")[0] == self._package

    def _once(self, value: dict[Any, Any] | list[Any] | FunctionType) -> str:
        number = len(self._met)
        if self._met.setdefault(id(value), number) != number:
            return f"#{self._met[id(value)]}"
        if isinstance(value, list):
            return f"#{number}[{', '.join(map(self.tell, value))}]"
        if isinstance(value, dict):
            return f"#{number}{{{', '.join(f'{self.tell(key)}: {self.tell(each)}' for key, each in value.items())}}}"
        given = value.__defaults__, tuple((value.__kwdefaults__ or {}).items())
        cells = tuple(cell.cell_contents for cell in value.__closure__ or ())
        return f"#{number}{self._code(value.__code__, value.__globals__)}{self.tell(given)}{self.tell(cells)}"

    def _code(self, code: CodeType, names: Mapping[str, object]) -> str:
        counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & _BEHAVIOUR_FLAGS
        variables = code.co_varnames, code.co_cellvars, code.co_freevars
        steps = "\n".join(f"{step.opname} {self._step(step, names)}" for step in dis.get_instructions(code))
        return f"<{counts} {variables} {code.co_exceptiontable!r}\n{steps}>"

    def _step(self, step: dis.Instruction, names: Mapping[str, object]) -> str:
        # Not by the constants' and names' numbers, which a docstring changes.
        what = step.argval
        if step.opname in _UNTOLD_CODE or (step.opname == "LOAD_GLOBAL" and what in _UNTOLD_BUILTINS):
            raise Untold(f"it has {step.opname} {what}")
        if isinstance(what, CodeType):
            return self._code(what, names)
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME") and what in names:
            return self.tell(names[what])
        return self.tell(what)


def _name(value: Any) -> str:
    return value.__name__ if isinstance(value, ModuleType) else f"{value.__module__}.{value.__qualname__}"
