"""Which sampler settings a grid has: what can be asked for, and the cells that follow."""
