"""Kernels in Triton for GPUs: Bi-WKV.

Uses `ops.eager`; used by `ops.dispatch`. Nothing here imports Triton before it is needed.
"""
