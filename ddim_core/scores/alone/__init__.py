"""Scores of one set of images that no reference is needed for: Inception score, Vendi score.

What compares two sets is told in `scores`.
"""
