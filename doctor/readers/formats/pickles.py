"""Reads pickles without unpickling: an interpreter of pickle's operations that never imports, calls or sets attributes.

It uses pickletools. Classes stay names and a call becomes a record of its arguments. So values can be read and a hostile file can do
nothing.
"""

from __future__ import annotations

import pickletools
from typing import Any

import msgspec

_MARK = object()


class PickledObject(msgspec.Struct):
    """An object that a pickle would build: the name of its class, the arguments, and the state."""

    name: str
    args: Any = ()
    state: Any = None


DAMAGE = (ValueError, IndexError, KeyError, TypeError, AttributeError, RecursionError, OverflowError, MemoryError)
"""Raised by `replay` for data that is no pickle, or a damaged one."""


def replay(data: bytes, longest: int = 1_000_000) -> Any:
    """The value of a pickle with at most `longest` operations, made of plain data and `PickledObject`. Raises one of `DAMAGE`."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if count > longest:
            raise ValueError("too long")
        if opcode.name == "STOP":
            return stack.pop()
        _step(opcode.name, argument, stack, memo)
    raise ValueError("it ends early")


def _to_mark(stack: list[Any]) -> list[Any]:
    place = len(stack) - 1
    while stack[place] is not _MARK:
        place -= 1
        if place < 0:
            raise ValueError("no mark on the stack")
    items = stack[place + 1 :]
    del stack[place:]
    return items


_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


def _step(name: str, argument: Any, stack: list[Any], memo: dict[int, Any]) -> None:
    if name in _CONSTANTS:
        stack.append(_CONSTANTS[name])
    elif name in ("EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"):
        stack.append([] if name == "EMPTY_LIST" else {} if name == "EMPTY_DICT" else [])
    elif name == "MARK":
        stack.append(_MARK)
    elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
        size = int(name[-1])
        stack[-size:] = [tuple(stack[-size:])]
    elif name in ("TUPLE", "LIST", "FROZENSET"):
        items = _to_mark(stack)
        stack.append(tuple(items) if name == "TUPLE" else items)
    elif name == "DICT":
        stack.append(_pairs(_to_mark(stack)))
    elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
        memo[int(argument)] = stack[-1]
    elif name == "MEMOIZE":
        memo[len(memo)] = stack[-1]
    elif name in ("BINGET", "LONG_BINGET", "GET"):
        stack.append(memo[int(argument)])
    elif name in ("POP", "DUP"):
        stack.pop() if name == "POP" else stack.append(stack[-1])
    elif name == "POP_MARK":
        _to_mark(stack)
    elif name in ("PROTO", "FRAME"):
        return
    elif not _fill(name, stack) and not _make(name, argument, stack):
        if argument is None:
            raise ValueError(f"opcode {name} is not for training arguments")
        stack.append(argument)


def _fill(name: str, stack: list[Any]) -> bool:
    """The opcodes that put something into what is already there."""
    if name in ("SETITEM", "SETITEMS"):
        items = _to_mark(stack) if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
        if isinstance(stack[-1], dict):
            stack[-1].update(_pairs(items))
    elif name in ("APPEND", "APPENDS", "ADDITEMS"):
        items = [stack.pop()] if name == "APPEND" else _to_mark(stack)
        if isinstance(stack[-1], list):
            stack[-1].extend(items)
    elif name == "BUILD":
        state = stack.pop()
        if isinstance(stack[-1], PickledObject):
            stack[-1].state = state
    else:
        return False
    return True


def _make(name: str, argument: Any, stack: list[Any]) -> bool:
    """The operations that would import or call: they only record what they would do."""
    if name == "GLOBAL":
        stack.append(PickledObject(str(argument)))
    elif name == "STACK_GLOBAL":
        stack[-2:] = [PickledObject(f"{stack[-2]} {stack[-1]}")]
    elif name in ("REDUCE", "NEWOBJ"):
        stack[-2:] = [PickledObject(getattr(stack[-2], "name", ""), stack[-1])]
    elif name == "NEWOBJ_EX":
        stack[-3:] = [PickledObject(getattr(stack[-3], "name", ""), stack[-2])]
    elif name in ("OBJ", "INST"):
        items = _to_mark(stack)
        stack.append(PickledObject(str(argument or getattr(items[0], "name", "")), tuple(items[name == "OBJ" :])))
    elif name in ("BINPERSID", "PERSID"):
        if name == "BINPERSID":
            stack.pop()
        stack.append(PickledObject("persistent"))
    else:
        return False
    return True


def _pairs(items: list[Any]) -> dict[Any, Any]:
    """A dict of key, value, key, value ...; unhashable keys are dropped."""
    return {key: value for key, value in zip(items[::2], items[1::2], strict=False) if isinstance(key, str | int | float | bool | None)}
