"""Errors of the libraries that decode files."""

from __future__ import annotations

import sqlite3
import struct
import tokenize

DECODING_ERRORS = (
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    sqlite3.Error,  # highdicom indexes frames in SQLite
    struct.error,
    tokenize.TokenError,
)
"""Exceptions that pydicom, highdicom, Pillow and NumPy raise on damaged or unsupported files."""
