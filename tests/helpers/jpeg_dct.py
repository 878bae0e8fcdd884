"""A small encoder of sequential JPEG (ITU-T T.81), to test its decoder without another one."""

from __future__ import annotations

import numpy as np
from scipy.fft import dctn

# The order in which the coefficients of a block are written (T.81, figure 5), by place.
ZIGZAG = (
    *(0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5),
    *(12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28),
    *(35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51),
    *(58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63),
)
_DC_LENGTH, _AC_LENGTH = 5, 9  # bits of every code


def encode(pixels: np.ndarray, precision: int, *, step: int = 1, restart: int = 0) -> bytes:
    """Return a stream of one component.

    Args:
        pixels: (rows, columns), unsigned integers.
        precision: Bits of a pixel, 8 or 12.
        step: Quantisation of every coefficient.
        restart: Blocks between restart markers; 0 for none.
    """
    rows, columns = pixels.shape
    frame = bytes((precision, *divmod(rows, 256), *divmod(columns, 256), 1, 1, 0x11, 0))
    head = b"\xff\xd8" + _segment(0xDB, bytes((0, *[step] * 64))) + _segment(0xC1, frame)
    head += _segment(0xC4, b"\x00" + _counts(_DC_LENGTH, 16) + bytes(range(16)))
    # 255 is left out, since the number of codes of one length is a byte.
    head += _segment(0xC4, b"\x10" + _counts(_AC_LENGTH, 255) + bytes(range(255)))
    if restart:
        head += _segment(0xDD, restart.to_bytes(2, "big"))
    head += _segment(0xDA, bytes((1, 1, 0, 0, 63, 0)))
    blocks = _blocks(pixels, precision, step)
    each = restart or len(blocks)
    body = b""
    for number, first in enumerate(range(0, len(blocks), each)):
        body += bytes((0xFF, 0xD0 + (number - 1) % 8)) if number else b""
        body += _coded(blocks[first : first + each])
    return head + body + b"\xff\xd9"


def _segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2, "big") + body


def _counts(length: int, number: int) -> bytes:
    return bytes(number if k == length else 0 for k in range(1, 17))


def _blocks(pixels: np.ndarray, precision: int, step: int) -> np.ndarray:
    """Quantised coefficients in the order of the stream, (blocks, 64)."""
    rows, columns = pixels.shape
    full = np.pad(pixels.astype(float), ((0, -rows % 8), (0, -columns % 8)), mode="edge")
    full -= 1 << (precision - 1)
    tiles = full.reshape(full.shape[0] // 8, 8, -1, 8).transpose(0, 2, 1, 3).reshape(-1, 8, 8)
    values = dctn(tiles, axes=(1, 2), norm="ortho").reshape(-1, 64)
    return np.rint(values[:, ZIGZAG] / step).astype(int)


def _coded(blocks: np.ndarray) -> bytes:
    bits, before = "", 0
    for block in blocks.tolist():
        bits += _number(block[0] - before, 0, _DC_LENGTH)
        before, zeros = block[0], 0
        for value in block[1:]:
            if value == 0:
                zeros += 1
                continue
            bits += format(0xF0, f"0{_AC_LENGTH}b") * (zeros // 16)
            bits += _number(value, zeros % 16, _AC_LENGTH)
            zeros = 0
        bits += "0" * _AC_LENGTH if zeros else ""  # the rest of the block is zero
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")


def _number(value: int, zeros: int, length: int) -> str:
    size = abs(value).bit_length()
    code = format(16 * zeros + size, f"0{length}b")
    return code + (format(value if value > 0 else value + (1 << size) - 1, f"0{size}b")) * (
        size > 0
    )
