"""Pickled NumPy arrays, read without executing anything that a file asks for.

A pickle is a program for a small machine that may call any function of any module. The recipe of
Python's documentation, an allow-list in `Unpickler.find_class`, keeps foreign functions out but not
memory bombs: a pickle of 9 bytes that names nothing makes `pickle` allocate a memo of gigabytes,
and so do a length that the file does not hold, and NumPy's own functions with a large shape.

So there are two checks. First, the bytes are scanned: only the instructions that the pickle of an
array consists of may occur, with lengths that the file can hold. Then `pickle` runs it, and each
function or class that it names is one of the few below or refused. Even these are not NumPy's own
but stand-ins that keep their arguments; the array is made from those, after they are checked.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restore_rwkv.errors import InputError

_LARGEST_FILE = 1 << 30  # bytes; a slice of 8192 x 8192 float64 is half as large
_LARGEST_PROGRAM = 500  # instructions; an array has about 50
_LARGEST_MEMO = 1000
_MOST_AXES = 4
_SIZES = {"f": (2, 4, 8), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "b": (1,)}

# Instructions that the pickle of an array consists of, by what follows them in the file. Lists are
# admitted for arrays of objects, which are refused later with a message about their content.
_ADMITTED_CODES = frozenset(
    b"(t)\x85\x86\x87N\x88\x89Rb0\x94\x93]lae"  # nothing
    b"\x80KMJG\x95qhrj"  # a fixed number of bytes
    b"ILSVpgc"  # a line of text, after "c" (GLOBAL) two
    b"UC\x8c\x8aTBX\x8b\x8d\x8e\x96"  # a length and as many bytes
)
_OPCODES = {ord(opcode.code): opcode for opcode in pickletools.opcodes}
_LENGTH_BYTES = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
_GLOBAL, _STOP = ord("c"), ord(".")
_PUT, _BINARY_PUTS = ord("p"), b"qr"


def read_pickled_array(path: Path) -> NDArray[Any]:
    """Read the one NumPy array that a pickle of any protocol holds.

    Args:
        path: File of at most 1 GiB.

    Returns:
        A new array of one to four axes, of real numbers or bool, in the machine's byte order.

    Raises:
        InputError: The file asks for anything else than an array, is damaged, or holds an array of
            another size than its data; the message says which. Nothing in it is executed.

    Example:
        >>> read_pickled_array(Path("IXI385-HH-2078-T2_58.bin")).shape  # doctest: +SKIP
        (1, 128, 128)
    """
    if path.stat().st_size > _LARGEST_FILE:
        raise InputError(f"{path.name}: larger than 1 GiB; give one slice per file")
    try:
        return _load(path.read_bytes())
    except _RefusalError as refusal:
        raise InputError(f"{path.name}: {refusal}") from refusal


class _RefusalError(Exception):
    """A pickle is refused; the message says why, and the remedy."""


def _load(content: bytes) -> NDArray[Any]:
    _scan(content)
    try:
        loaded = _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
    except _RefusalError:
        raise
    except Exception as error:  # a damaged program can fail in any way
        raise _damaged(type(error).__name__) from error
    if type(loaded) is not _Array:
        raise _RefusalError("a pickle of something else than a NumPy array; give arrays")
    return loaded.made()


def _damaged(why: str) -> _RefusalError:
    return _RefusalError(f"the pickle is damaged ({why}); copy it again")


def _scan(content: bytes) -> None:
    """Refuse instructions that arrays do not need, and lengths that are not in the file."""
    position = steps = 0
    while position < len(content):
        code = content[position]
        position += 1
        if code == _STOP:
            if position != len(content):
                raise _damaged("it continues after its end")
            return
        steps += 1
        if steps > _LARGEST_PROGRAM:
            raise _RefusalError("a pickle of more than one NumPy array; give one array a file")
        position = _after(content, code, position)
        if position > len(content):
            break
    raise _damaged("it ends too early")


def _after(content: bytes, code: int, position: int) -> int:
    """Position after the argument of an instruction."""
    if code not in _ADMITTED_CODES:
        name = _OPCODES[code].name if code in _OPCODES else f"an unknown instruction ({code})"
        raise _RefusalError(f"a pickle with {name}, which no array has; give arrays")
    argument = _OPCODES[code].arg
    width = 0 if argument is None else argument.n
    if width >= 0:
        end = position + width
        number = int.from_bytes(content[position:end], "little")
        if code in _BINARY_PUTS and number > _LARGEST_MEMO:
            raise _damaged("its memo is too large")
        return end
    if width in _LENGTH_BYTES:
        start = position + _LENGTH_BYTES[width]
        return start + int.from_bytes(content[position:start], "little")
    return _after_lines(content, code, position)


def _after_lines(content: bytes, code: int, start: int) -> int:
    end = start
    for _ in range(2 if code == _GLOBAL else 1):
        end = content.find(b"\n", end) + 1
        if end == 0:
            raise _damaged("a line has no end")
    if code == _PUT and not re.fullmatch(rb"\d{1,3}\n", content[start:end]):
        raise _damaged("its memo is too large")
    return end


class _ArrayUnpickler(pickle.Unpickler):
    """Runs a scanned pickle with stand-ins; names that have none are refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ADMITTED:
            return _ADMITTED[module, name]
        asked = f"{module}.{name}"[:80]
        if module.split(".")[0] == "torch":
            raise _RefusalError(
                f"a pickled PyTorch tensor (asks for {asked!a}); save tensor.numpy() instead"
            )
        raise _RefusalError(
            f"asks for {asked!a}, which is not part of a NumPy array; nothing was executed, do not "
            "trust this file"
        )


class _Named:
    """Stands in for a function or class that a pickle names."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __setstate__(self, state: object) -> None:
        raise _damaged(f"it changes {self._name}")

    def __call__(self, *args: object) -> object:
        calls: dict[str, Callable[..., object]] = {
            "_reconstruct": _Array.empty,
            "_frombuffer": _Array.of_buffer,
            "dtype": _Dtype,
            "encode": _encode,
        }
        if self._name not in calls:
            raise _damaged(f"it calls {self._name}")
        return calls[self._name](*args)


class _Dtype:
    """Unchecked description of a data type, as the pickle gives it."""

    __slots__ = ("code", "order")

    def __init__(self, code: object, *_: object) -> None:
        self.code = code
        self.order: object = "="

    def __setstate__(self, state: object) -> None:
        if type(state) is not tuple or len(state) < 5 or any(x is not None for x in state[2:5]):
            raise _RefusalError("an array of records or sub-arrays; give arrays of real numbers")
        self.order = state[1]

    def made(self) -> np.dtype[Any]:
        code, order = self.code, self.order
        if type(code) is not str or type(order) is not str or order not in ("<", ">", "|", "="):
            raise _damaged("its data type is invalid")
        kind, size = code[:1], code[1:]
        if size not in map(str, _SIZES.get(kind, ())):
            raise _RefusalError(f"an array of type {code[:20]!a}; give arrays of real numbers")
        return np.dtype(code if order == "|" else order + code)


class _Array:
    """Unchecked description of an array, as the pickle gives it."""

    __slots__ = ("axes", "data", "dtype", "order", "shape")

    def __init__(self) -> None:
        self.shape: object = None
        self.dtype: object = None
        self.data: object = None
        self.order: object = "C"
        self.axes: object = None

    @classmethod
    def empty(cls, kind: object, *_: object) -> _Array:
        """`numpy._core.multiarray._reconstruct`: an array that gets its state later."""
        if kind is not _NDARRAY:
            raise _damaged("it reconstructs no array")
        return cls()

    @classmethod
    def of_buffer(
        cls, data: object, dtype: object, shape: object, order: object, axes: object = None
    ) -> _Array:
        """`numpy._core.numeric._frombuffer`, of protocol 5."""
        array = cls()
        array.data, array.dtype, array.shape = data, dtype, shape
        array.order, array.axes = order, axes
        return array

    def __setstate__(self, state: object) -> None:
        if type(state) is not tuple or len(state) != 5:
            raise _damaged("its array has no state")
        _, self.shape, self.dtype, fortran, self.data = state
        self.order = "F" if fortran in (True, 1) else "C"

    def made(self) -> NDArray[Any]:
        """The array, after its description has been checked."""
        data = self.data.encode("latin1") if isinstance(self.data, str) else self.data
        shape = self.shape
        if type(self.dtype) is not _Dtype or not isinstance(data, (bytes, bytearray)):
            raise _RefusalError("an array of objects or without data; give arrays of real numbers")
        dtype = self.dtype.made()
        if not isinstance(shape, tuple) or not 1 <= len(shape) <= _MOST_AXES:
            raise _RefusalError(
                f"an array without axes or with more than {_MOST_AXES}; give slices"
            )
        if any(type(length) is not int or length < 1 for length in shape):
            raise _damaged("its shape is invalid")
        if math.prod(shape) * dtype.itemsize != len(data):
            raise _damaged(f"its array should have {len(data)} bytes and does not")
        order = self.order if isinstance(self.order, str) else ""
        if order not in ("C", "F", "K") or (order == "K" and self.axes is None):
            raise _damaged("its order is invalid")
        array = np.frombuffer(data, dtype).reshape(shape, order="F" if order == "F" else "C")
        if order == "K":
            array = array.transpose(_permutation(self.axes, len(shape)))
        return array.astype(dtype.newbyteorder("="))


def _permutation(axes: object, count: int) -> tuple[int, ...]:
    if not isinstance(axes, (tuple, list)) or any(type(axis) is not int for axis in axes):
        raise _damaged("its axes are invalid")
    if sorted(axes) != list(range(count)):
        raise _damaged("its axes are invalid")
    return tuple(axes)


def _encode(text: object = None, encoding: object = None) -> bytes:
    """`_codecs.encode`, with which protocols 0 to 2 turn text into bytes."""
    if type(text) is not str or type(encoding) is not str or encoding != "latin1":
        raise _damaged("it encodes no bytes")
    return text.encode("latin1")


_NDARRAY = _Named("ndarray")
_ADMITTED = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Named("dtype"),
    ("numpy.core.multiarray", "_reconstruct"): _Named("_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"): _Named("_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"): _Named("_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"): _Named("_frombuffer"),
    ("_codecs", "encode"): _Named("encode"),
}
