"""One number an image, by a network and often its prompt: the scores by name, their means, pairs.

A new score starts here, with a file of its own and a line in `registry`. Distances between sets of
images are in `scores`.
"""
