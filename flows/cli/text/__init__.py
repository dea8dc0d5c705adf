"""Rows as text for terminals: the table, comparisons, and what is said of damaged rows.

Sentences that reports share are the core's (`ddim_core.reports`).
"""
