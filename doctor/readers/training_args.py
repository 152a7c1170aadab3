"""training_args.bin without unpickling: its pickle is run through a machine that knows no import, no call and no attribute.

Format: torch.save's zip (or the bare pickle of old PyTorch); the opcodes are Python's own (pickletools). Classes stay names, a call
becomes a record of its arguments, so that the values can be read and a hostile file can do nothing.
"""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from doctor.events import ConfigSeen, Event, Fact
from doctor.readers.base import File, ReaderBase

_LIMIT = 4 << 20
_MARK = object()
_PLAIN = (str, int, float, bool)
_OWN = frozenset({"generation_max_length", "distributed_state", "_n_gpu", "hub_token", "push_to_hub_token"})


class Made(msgspec.Struct):
    """What a pickle wanted to build: the class by its name, the arguments, and the state that it would have been given."""

    name: str
    args: Any = ()
    state: Any = None


class TrainingArgs(ReaderBase):
    """Also the copies in checkpoints: they agree with the root's."""

    kind = "training_args"

    def claims(self, path: Path, head: bytes) -> bool:
        return path.name == "training_args.bin"

    def configs(self, file: File) -> Iterator[Event]:
        data = self._pickle(file)
        if data is None:
            return
        try:
            built = replay(data)
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, RecursionError, OverflowError, MemoryError) as error:
            file.source.problem(f"not a readable pickle (it is never unpickled): {error}")
            return
        state = built.state if isinstance(built, Made) else None
        if isinstance(state, tuple):
            state = next((part for part in state if isinstance(part, dict)), None)
        if not isinstance(state, dict):
            file.source.problem("holds no training arguments")
            return
        values = {key: value for key, raw in state.items() if isinstance(key, str) and (value := _value(raw)) is not None}
        file.source.records = len(values)
        yield from arguments_seen(values, file)
        world = _world_size(state.get("distributed_state"))
        if world is not None:
            yield Fact(where=file.where(), name="world_size", value=world)

    def _pickle(self, file: File) -> bytes | None:
        try:
            with zipfile.ZipFile(file.path) as archive:
                entry = next((one for one in archive.infolist() if one.filename.endswith("data.pkl")), None)
                if entry is None or entry.file_size > _LIMIT:
                    file.source.problem("no data.pkl of a usual size in it")
                    return None
                return archive.open(entry).read(_LIMIT)
        except zipfile.BadZipFile:
            return file.whole(_LIMIT)
        except (OSError, RuntimeError, NotImplementedError, EOFError, ValueError) as error:
            file.source.problem(f"cannot be read: {error}")
            return None


def arguments_seen(values: dict[str, Any], file: File) -> Iterator[Event]:
    """ConfigSeen of the attributes of a TrainingArguments; LLaMA-Factory hands cutoff_len down as generation_max_length."""
    options = {key: value for key, value in values.items() if not key.startswith("_") and key not in _OWN}
    length = values.get("generation_max_length")
    if type(length) is int:
        options["cutoff_len"] = length
    if options:
        yield ConfigSeen(where=file.where(), values=options, origin="training_args")


def _value(raw: Any) -> Any:
    """A plain value; an enumeration (`IntervalStrategy("steps")`) is its argument."""
    if isinstance(raw, Made):
        argument = raw.args[0] if isinstance(raw.args, tuple) and raw.args else None
        return argument if isinstance(argument, _PLAIN) else None
    if isinstance(raw, _PLAIN):
        return raw
    if isinstance(raw, list) and all(isinstance(one, _PLAIN) for one in raw):
        return list(raw)
    return None


def _world_size(state: Any) -> int | None:
    inner = state.state if isinstance(state, Made) else None
    if isinstance(inner, tuple):
        inner = next((part for part in inner if isinstance(part, dict)), None)
    count = inner.get("num_processes") if isinstance(inner, dict) else None
    return count if type(count) is int and count > 0 else None


def replay(data: bytes) -> Any:
    """The value that a pickle describes, of plain data and `Made`; ValueError and its kin on anything damaged."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if count > 1_000_000:
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
        if isinstance(stack[-1], Made):
            stack[-1].state = state
    else:
        return False
    return True


def _make(name: str, argument: Any, stack: list[Any]) -> bool:
    """The opcodes that would import or call: they only write down what was asked for."""
    if name == "GLOBAL":
        stack.append(Made(str(argument)))
    elif name == "STACK_GLOBAL":
        stack[-2:] = [Made(f"{stack[-2]} {stack[-1]}")]
    elif name in ("REDUCE", "NEWOBJ"):
        stack[-2:] = [Made(getattr(stack[-2], "name", ""), stack[-1])]
    elif name == "NEWOBJ_EX":
        stack[-3:] = [Made(getattr(stack[-3], "name", ""), stack[-2])]
    elif name in ("OBJ", "INST"):
        items = _to_mark(stack)
        stack.append(Made(str(argument or getattr(items[0], "name", "")), tuple(items[name == "OBJ" :])))
    elif name in ("BINPERSID", "PERSID"):
        if name == "BINPERSID":
            stack.pop()
        stack.append(Made("persistent"))
    else:
        return False
    return True


def _pairs(items: list[Any]) -> dict[Any, Any]:
    """Key, value, key, value ...; keys that cannot be keys are dropped."""
    return {key: value for key, value in zip(items[::2], items[1::2], strict=False) if isinstance(key, str | int | float | bool | None)}
