"""Other codes' networks as diffusers': a file each, with what tells it and what is assumed.

A new format of checkpoint starts here, and gets its line in `ddim_core.checkpoints.single_file`.
"""
