"""A LoRA's life apart from its training and its scores: specs, data, adapters, files, reloading.

The base under it is opened in `text2image`.
"""
