"""Pickles of arrays are read; nothing that any other pickle asks for ever runs."""

from __future__ import annotations

import codecs
import contextlib
import os
import pickle
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from restore_rwkv.data.sources.pickled import read_pickled_array
from restore_rwkv.errors import InputError

PROTOCOLS = range(6)
same_folder = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def read(folder: Path, content: bytes) -> np.ndarray:
    path = folder / "slice.bin"
    path.write_bytes(content)
    return read_pickled_array(path)


@same_folder
@given(
    array=hnp.arrays(
        st.sampled_from(
            ["<f4", ">f4", "<f8", "<f2", "|u1", "|i1", ">u2", "<i2", "<i4", ">i8", "|b1"]
        ),
        hnp.array_shapes(max_dims=3, max_side=4),
    ),
    order=st.sampled_from(["as is", "F", "reversed", "transposed", "read-only"]),
    protocol=st.sampled_from(PROTOCOLS),
    package=st.sampled_from([b"numpy._core", b"numpy.core"]),
)
def test_arrays_of_every_protocol_come_back(tmp_path, array, order, protocol, package):
    view = {"F": np.asfortranarray(array), "reversed": array[::-1]}.get(order, array)
    if order == "transposed" and array.ndim == 3:
        view = array.transpose(1, 2, 0)
    if order == "read-only":
        view.flags.writeable = False
    content = pickle.dumps(view, protocol=protocol)
    if protocol < 4:  # later ones hold the length of the name
        content = content.replace(b"numpy._core", package)
    result = read(tmp_path, content)
    assert result.shape == view.shape
    assert result.dtype == view.dtype.newbyteorder("=")
    assert result.flags.writeable
    np.testing.assert_array_equal(result, view)


def test_names_of_numpy_1_with_their_lengths(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    for protocol in (4, 5):
        content = pickle.dumps(array, protocol=protocol)
        for module in (b"numpy._core.multiarray", b"numpy._core.numeric"):
            old = module.replace(b"_core", b"core")
            content = content.replace(
                bytes([0x8C, len(module)]) + module, bytes([0x8C, len(old)]) + old
            )
        # The frame is a byte shorter.
        (length,) = struct.unpack("<Q", content[3:11])
        content = content[:3] + struct.pack("<Q", length - 1) + content[11:]
        np.testing.assert_array_equal(read(tmp_path, content), array)


def python2(array: np.ndarray, protocol: int) -> bytes:
    """What Python 2 pickles: byte strings for names and data."""

    def text(value: bytes) -> bytes:
        if protocol == 0:
            return b"S" + repr(value)[1:].encode("latin1") + b"\n"
        return b"T" + struct.pack("<I", len(value)) + value

    rows, columns = array.shape
    code = array.dtype.str[1:].encode()
    return (
        (b"\x80\x02" if protocol else b"")
        + b"cnumpy.core.multiarray\n_reconstruct\np0\n(cnumpy\nndarray\np1\n(I0\ntp2\n"
        + text(b"b")
        + b"p3\ntp4\nRp5\n(I1\n(L%dL\nL%dL\ntp6\ncnumpy\ndtype\np7\n(" % (rows, columns)
        + text(code)
        + b"p8\nI0\nI1\ntp9\nRp10\n(I3\n"
        + text(array.dtype.str[:1].encode())
        + b"p11\nNNNI-1\nI-1\nI0\ntp12\nbI00\n"
        + text(array.tobytes())
        + b"p13\ntp14\nb."
    )


@pytest.mark.parametrize("protocol", [0, 2])
@pytest.mark.parametrize("dtype", ["<f4", ">i2"])
def test_pickles_of_python_2(tmp_path, protocol, dtype):
    array = np.array([[-1.5, 2e4, 3], [0.25, 200, -7]]).astype(dtype)
    content = python2(array, protocol)
    np.testing.assert_array_equal(pickle.loads(content, encoding="latin1"), array)
    np.testing.assert_array_equal(read(tmp_path, content), array)


class Calls:
    """An object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Evil:
    """One that hides the call in the state of an array."""

    def __init__(self, *state):
        self.state = state

    def __reduce__(self):
        return np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), self.state


def system(command: str) -> Calls:
    return Calls(os.system, command)


def attacks(proof: Path) -> dict[str, object]:
    touch = f"touch {proof}"
    source = f"open({str(proof)!r}, 'w')"
    objects = np.empty(1, object)
    objects[0] = system(touch)
    nested = np.empty(2, object)
    nested[:] = [np.ones(3), [{"deep": (system(touch),)}]]
    return {
        "os.system": system(touch),
        "eval": Calls(eval, source),
        "exec": Calls(exec, source),
        "open": Calls(open, str(proof), "w"),
        "getattr": Calls(getattr, "text", "upper"),
        "import": Calls(__import__, "this"),
        "object array": objects,
        "nested in an object array": nested,
        "shape of an array": Evil(1, system(touch), np.dtype("f4"), False, b""),
        "type of an array": Evil(1, (1,), system(touch), False, b"1234"),
        "data of an array": Evil(1, (1,), np.dtype("f4"), False, system(touch)),
        "in a list": [np.ones(2), system(touch)],
        "in a tuple": (np.ones(2), system(touch)),
        "numpy's file writer": Calls(np.ndarray.tofile, np.ones(3), str(proof)),
        "numpy's saver": Calls(np.save, str(proof), np.ones(3)),
        "numpy's loader": Calls(np.load, str(proof)),
        "numpy's memory map": Calls(np.memmap, str(proof), "u1", "w+", 0, (1,)),
        "numpy's test runner": Calls(np.testing.rundocs, str(proof)),
        "numpy's vectorised eval": Calls(np.frompyfunc, eval, 1, 1),
        "any codec": Calls(codecs.encode, "x", "zip"),
        "decoding": Calls(codecs.decode, b"x", "latin1"),
        "a number of numpy's": np.float32(1),
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_that_a_pickle_asks_for_runs(tmp_path, protocol):
    proof = tmp_path / "ran"
    for what, attack in attacks(proof).items():
        content = pickle.dumps(attack, protocol=protocol)
        with pytest.raises(InputError, match=r"slice\.bin: ") as caught:
            read(tmp_path, content)
        assert not proof.exists(), what
        assert len(str(caught.value)) < 300, what


@pytest.mark.parametrize("what", ["os.system", "eval", "nested in an object array"])
def test_the_attacks_are_real(tmp_path, what):
    proof = tmp_path / "ran"
    result = pickle.loads(pickle.dumps(attacks(proof)[what]))
    assert proof.exists()
    if what == "eval":
        result.close()


@pytest.mark.parametrize(
    ("attack", "named"),
    [
        (system("true"), f"{os.system.__module__}.system"),
        (Calls(eval, "1"), "eval"),
        (np.array([system("true")], object), f"{os.system.__module__}.system"),
        (np.float64(3), "scalar"),
        ({"array": np.ones(2)}, "DICT"),
        (np.ma.masked_array([1.0]), "numpy.ma"),
    ],
)
def test_refusals_name_what_was_asked_for(tmp_path, attack, named):
    with pytest.raises(InputError, match=named):
        read(tmp_path, pickle.dumps(attack, protocol=2))


def test_a_pytorch_tensor_is_refused_with_the_remedy(tmp_path):
    import torch

    with pytest.raises(InputError, match=r"PyTorch tensor .* save tensor\.numpy\(\)"):
        read(tmp_path, pickle.dumps(torch.zeros(1, 3, 3)))


@pytest.mark.parametrize("value", ["text", 3, None, [np.ones(2)], (np.ones(2),), b"bytes"])
def test_other_values_are_refused(tmp_path, value):
    with pytest.raises(InputError, match=r"something else than a NumPy array|no array has"):
        read(tmp_path, pickle.dumps(value))


@pytest.mark.parametrize(
    "array",
    [
        np.array(["a", None], object),
        np.array(["text"]),
        np.array([b"bytes"]),
        np.array([1 + 2j]),
        np.zeros(2, [("a", "f4")]),
        np.zeros(2, "datetime64[s]"),
        np.array(1.0),
        np.zeros((1, 1, 1, 1, 1)),
        np.zeros((0, 4)),
    ],
)
def test_arrays_that_are_no_images_are_refused(tmp_path, array):
    for protocol in (2, 4, 5):
        with pytest.raises(InputError, match=r"slice\.bin: "):
            read(tmp_path, pickle.dumps(array, protocol=protocol))


GLOBAL_ARRAY = b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"
DTYPE = (
    b"cnumpy\ndtype\n(U\x02f4K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
)


def array_program(shape: bytes, data: bytes, dtype: bytes = DTYPE) -> bytes:
    return b"\x80\x02" + GLOBAL_ARRAY + b"(K\x01" + shape + dtype + b"\x89" + data + b"tb."


def test_hand_written_programs(tmp_path):
    data = np.arange(2, dtype="<f4").tobytes()
    content = array_program(b"K\x01K\x02\x86", b"B\x08\x00\x00\x00" + data)
    np.testing.assert_array_equal(read(tmp_path, content), [[0, 1]])


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "ends too early"),
        (b"\x80\x04", "ends too early"),
        (pickle.dumps(np.ones(3)) + pickle.dumps(np.ones(3)), "continues after its end"),
        (pickle.dumps([np.ones(1)] * 300 + [np.ones(1) for _ in range(300)]), "more than one"),
        # Claims of size: in a length, in a shape, in the memo.
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"few.", "ends too early"),
        (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"few.", "ends too early"),
        (array_program(b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86", b"C\x04abcd"), "should have 4"),
        (array_program(b"\x8a\x09" + b"\xff" * 8 + b"\x00\x85", b"C\x04abcd"), "should have 4"),
        (
            array_program(b"J\xff\xff\xff\xffJ\xff\xff\xff\xff\x86", b"C\x04abcd"),
            "shape is invalid",
        ),
        (array_program(b"\x88\x85", b"C\x04abcd"), "shape is invalid"),
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "memo is too large"),
        (b"Np99999999\n.", "memo is too large"),
        (b"L" + b"9" * 5000 + b"\n.", "damaged"),
        # Changes of what is admitted.
        (b"\x80\x02cnumpy\nndarray\nN}U\x01aK\x01s\x86b.", "no array has"),
        (b"\x80\x02cnumpy\nndarray\n(NK\x01tb.", "it changes ndarray"),
        (b"\x80\x02cnumpy\ndtype\nNb.", "it changes dtype"),
        (b"\x80\x02cnumpy\nndarray\n(K\x01tR.", "it calls ndarray"),
        (b"\x80\x02cnumpy._core.multiarray\n_reconstruct\n(cnumpy\ndtype\ntR.", "reconstructs no"),
        (b"\x80\x02" + GLOBAL_ARRAY + b"K\x01R.", "damaged"),
        (b"\x80\x02" + GLOBAL_ARRAY + b".", "objects or without data"),
        (b"\x80\x02" + GLOBAL_ARRAY + b"Nb.", "no state"),
        (b"\x80\x02c_codecs\nencode\n(U\x01aU\x03ziptR.", "encodes no bytes"),
        (b"\x80\x02c_codecs\nencode\n(U\x01aU\x06latin1tR.", "something else"),
        # Ways around the names that are admitted.
        (b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.", "ndarray.tofile"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x02K\x01Q.", "BINPERSID"),
        (b"P1\n.", "PERSID"),
        (b"(ios\nsystem\n.", "INST"),
        (b"(cos\nsystem\no.", "OBJ"),
        (b"\x80\x02cnumpy\nndarray\n)\x81.", "NEWOBJ"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
        (b"\xff.", "unknown instruction"),
    ],
)
def test_damaged_and_hostile_programs_are_refused(tmp_path, content, why):
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=why):
            read(tmp_path, content)
        assert tracemalloc.get_traced_memory()[1] < 2e6
    finally:
        tracemalloc.stop()


def test_types_that_are_invalid(tmp_path):
    for code in (b"O8", b"V4", b"O", b"f", b"f3", b"<f4", b"f4,f4", b"", b"f44"):
        dtype = b"cnumpy\ndtype\n(U" + bytes([len(code)]) + code + b"K\x00K\x01tR"
        content = array_program(b"K\x01\x85", b"C\x04abcd", dtype)
        with pytest.raises(InputError, match="of type"):
            read(tmp_path, content)
    records = DTYPE.replace(b"<NNN", b"<N(U\x01atN")
    with pytest.raises(InputError, match="records"):
        read(tmp_path, array_program(b"K\x01\x85", b"C\x04abcd", records))


@same_folder
@given(data=st.data())
def test_random_changes_read_or_are_refused(tmp_path, data):
    protocol = data.draw(st.sampled_from(PROTOCOLS))
    content = bytearray(pickle.dumps(np.arange(6, dtype="<f4").reshape(2, 3), protocol=protocol))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InputError):
        assert read(tmp_path, bytes(content)).nbytes <= len(content)


@same_folder
@given(content=st.binary(max_size=60))
def test_random_bytes_are_refused(tmp_path, content):
    with pytest.raises(InputError):
        read(tmp_path, content)


def test_large_files_are_refused_unread(tmp_path):
    path = tmp_path / "slice.bin"
    with path.open("wb") as stream:
        stream.truncate((1 << 30) + 1)
    with pytest.raises(InputError, match="larger than 1 GiB"):
        read_pickled_array(path)
