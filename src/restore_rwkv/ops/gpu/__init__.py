"""Triton kernels for GPUs: Bi-WKV.

Imports `ops.eager`; imported by `ops.dispatch`. Triton is imported only when it is needed.
"""
