"""Real images: from a name or a place to uint8 [n, h, w, c], and out again as files.

The two embedded data sets, sets and tables of images, pixels to floats and back. The forms that a
data set comes in, and decoding, are in `sources`; features of images are in `features`.
"""
