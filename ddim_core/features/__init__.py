"""Images to rows of numbers: the extractors by name, their networks, their resize, their protocol.

A new extractor starts here. What is made of the rows is told in `statistics` and `scores`.
"""
