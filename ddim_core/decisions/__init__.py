"""Which row wins: comparisons corrected for their number, verdicts, and who gets the next images.

Rows in, decisions out; what is said about them is in `reports`.
"""
