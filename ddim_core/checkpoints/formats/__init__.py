"""Other codes' networks as diffusers': a file each, with what tells it and what is assumed.

A new format is a `Format` in a file of its own here, and its name in `FORMATS` of
`ddim_core.checkpoints.formats.registry`.
"""
