"""A cell's way: sampled, embedded, scored, a row of the table; and other uses of its images.

What all cells share is made ready in `checkpoints` and `images`.
"""
