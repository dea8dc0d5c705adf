"""Samplers that are diffusers' schedulers: their names, which checkpoint each fits, their steps.

A name of a sampler is read, fitted to a checkpoint's own scheduler, run over a bare network and
linted here. The sampler of our own (DDIM, sigma-hat) is in `diffusion`; whole pipelines that draw
with these schedulers are in `pipelines`. Nothing here opens a file.
"""
