"""C kernels for CPUs: Bi-WKV, the token-wise products of a block, and its norm and shift.

Imports `ops.eager`; imported by `ops.dispatch` and the blocks of the network.
"""
