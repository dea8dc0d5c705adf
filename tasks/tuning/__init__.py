"""Tasks that tune a sampler's list of timesteps for a checkpoint: its long run, and the search.

What a tuned setting is worth is scored by `tasks.cells`, as of any other sampler.
"""
