"""Rows to estimates: moments, pairs, jackknife, paired differences, and .npz files of them.

Whatever is true of any estimate. A formula that has a name in the literature of generative models
is in `scores`.
"""
