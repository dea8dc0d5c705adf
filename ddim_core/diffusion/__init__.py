"""From noise to x_0, on tensors alone: specs, schedules, timesteps, steps, noise, and their linter.

A new sampler starts here. Nothing here opens a file or knows a network: a model is what can be
called. Where networks come from is told in `networks` and `checkpoints`.
"""
