"""Openly licensed scans from software packages: the table, fetching, conversion, the sets.

Uses the writer of sets and the shared parts of sources; the command line uses it.
"""

from restore_rwkv.data.open_scans.convert import check_scans, fetch_scans, read_scan
from restore_rwkv.data.open_scans.sets import prepare_open
from restore_rwkv.data.open_scans.table import OPEN_SCANS, OpenScan, Package

__all__ = [
    "OPEN_SCANS",
    "OpenScan",
    "Package",
    "check_scans",
    "fetch_scans",
    "prepare_open",
    "read_scan",
]
