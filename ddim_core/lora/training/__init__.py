"""The training of a LoRA: what it sees at each step, its loss, its loop, its state on disk.

Nothing here knows Prefect; where it runs, in one process or several, is told in `engine`.
"""
