"""Rows in, pages out: HTML that opens from disk, Markdown for Prefect, templates beside their task.

Sentences and pictures are computed in `ddim_core.reports`.
"""
