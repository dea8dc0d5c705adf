"""A checkpoint's place in, its content in the store out; watched, trained, kept in memory.

Formats are the core's (`ddim_core.checkpoints`); what MLflow holds is read in `tracking`.
"""
