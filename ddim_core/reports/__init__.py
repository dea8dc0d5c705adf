"""Sentences and pictures that are computed from rows: text, and PNG bytes.

Nothing here computes a score or takes a decision, and nothing writes a page: tasks do.
"""
