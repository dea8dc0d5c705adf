"""Schedulers by the name of their class: diffusers', and those that diffusers has not, a file each.

What is called by a name, and which checkpoint it fits, stands in `samplers`.
"""
