"""The plane: data sets of points, their small model, the Chamfer distance and its score.

Schedules and steps are those of `diffusion`; pictures of points are in `reports`.
"""
