"""Other people's bytes made plain values: bounded, without circles, and without running code.

Pickles, tensors in shards, JSON and YAML, text, archives, folders. What the values mean (a
checkpoint, a data set, captions) is told in `checkpoints` and `images`, which read through here.
"""
