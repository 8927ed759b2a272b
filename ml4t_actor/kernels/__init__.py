"""Compiled inner loops: one state array, one step, called live and looped in a batch.

Kernels that call each other stand in one file, because numba's cache does not notice an edited callee in
another file. None uses ``fastmath``: live and batch results must agree bit for bit.
"""
