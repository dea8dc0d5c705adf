"""Networks that diffusers has not: one file each, by its paper's names, and the table of them.

Whose weights they take, and how their names are told, stands in `checkpoints.formats`.
"""
