"""Kernels in C for CPUs: Bi-WKV, and the token-wise products of a block.

Uses `ops.eager`; used by `ops.dispatch` and the blocks of the network.
"""
