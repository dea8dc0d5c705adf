"""The forms of data sets, one file a form, and the decoding of one image's bytes.

A new form starts here: it yields names, labels, captions and bytes or pixels. Which form a place
has is found, and images are resized, in `ddim_core.images.load.load`.
"""
