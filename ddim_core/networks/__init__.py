"""What predicts noise in images: how it is built (one at a time), called, batched and trained.

Networks of points, of features and of LoRAs are in their own rooms and are built by the same lock
(`building`). Files of networks are read in `checkpoints`.
"""
