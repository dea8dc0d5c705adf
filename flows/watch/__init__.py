"""What goes on around the watch of checkpoints without being a run of it.

The watch itself is a deployment, `flows.checkpoint_watch`.
"""
