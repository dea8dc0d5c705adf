"""Drawing a cell: checkpoint and setting in, shards of images out; and what else a network does.

Features and scores of the images are taken in `tasks.cells`.
"""
