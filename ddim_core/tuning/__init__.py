"""Finding where a few-step sampler should ask a checkpoint's network: lists of timesteps or sigmas.

Here are the runs that are compared, their distance and the search. How good a list is in the end is
for the grid to say: scores live in `ddim_core.scores`, decisions in `ddim_core.decisions`.
"""
