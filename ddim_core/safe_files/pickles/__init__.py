"""Pickles by their opcodes: what torch's would call, and arrays read without calling anything.

How weights are read is told in `safe_load`.
"""
