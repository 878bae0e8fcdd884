"""A small encoder of JPEG Lossless (ITU-T T.81), so that its decoder is tested without another."""

from __future__ import annotations

import numpy as np

_LENGTH = 5  # bits of each code; 17 categories fit into 32


def encode(
    pixels: np.ndarray, precision: int, predictor: int = 1, *, shift: int = 0, rows: int = 0
) -> bytes:
    """Return a stream of one component.

    Args:
        pixels: (rows, columns), unsigned integers.
        precision: Bits of a pixel.
        predictor: Selection value, 1 to 7.
        shift: Bits that are dropped (point transform).
        rows: Rows between restart markers; 0 for none.
    """
    height, width = pixels.shape
    frame = bytes((precision, *divmod(height, 256), *divmod(width, 256), 1, 1, 0x11, 0))
    counts = bytes(17 if length == _LENGTH else 0 for length in range(1, 17))
    head = b"\xff\xd8" + _segment(0xC3, frame) + _segment(0xC4, b"\0" + counts + bytes(range(17)))
    if rows:
        head += _segment(0xDD, (rows * width).to_bytes(2, "big"))
    head += _segment(0xDA, bytes((1, 1, 0, predictor, 0, shift)))
    values = pixels.astype(np.int64) >> shift
    blocks = [
        values[first : first + (rows or height)] for first in range(0, height, rows or height)
    ]
    body = b""
    for number, block in enumerate(blocks):
        body += bytes((0xFF, 0xD0 + (number - 1) % 8)) if number else b""
        body += _coded(block, precision - shift, predictor)
    return head + body + b"\xff\xd9"


def _segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2, "big") + body


def _coded(block: np.ndarray, precision: int, predictor: int) -> bytes:
    bits = ""
    for i, j in np.ndindex(block.shape):
        difference = (int(block[i, j]) - _guess(block, i, j, precision, predictor)) & 0xFFFF
        difference -= 65536 if difference > 32768 else 0
        category = abs(difference).bit_length()
        bits += format(category, f"0{_LENGTH}b")
        if 0 < category < 16:
            bits += format(
                difference if difference > 0 else difference + (1 << category) - 1, f"0{category}b"
            )
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")


def _guess(block: np.ndarray, i: int, j: int, precision: int, predictor: int) -> int:
    if i == 0:
        return int(block[0, j - 1]) if j else 1 << (precision - 1)
    if j == 0:
        return int(block[i - 1, 0])
    a, b, c = (int(block[at]) for at in ((i, j - 1), (i - 1, j), (i - 1, j - 1)))
    choices = (a, b, c, a + b - c, a + ((b - c) >> 1), b + ((a - c) >> 1), (a + b) >> 1)
    return choices[predictor - 1]
