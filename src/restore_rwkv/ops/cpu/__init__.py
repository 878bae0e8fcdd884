"""C kernels for CPUs: Bi-WKV, and the token-wise products of a block.

Imports `ops.eager`; imported by `ops.dispatch` and the blocks of the network.
"""
