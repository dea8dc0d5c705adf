"""A LoRA's life apart from its training and its scores: specs, recipes by kind of base, data,
adapters, files, reloading.

The base under it is opened in `text2image`.
"""
