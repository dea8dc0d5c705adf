"""Whole pipelines of diffusers, of any family that makes images: opened, asked, drawn from.

A folder or a single file is opened without running anything that lies in it; what a pipeline's call
takes is read off its signature; prompts are encoded once; images are drawn by the pipeline's own
call with a scheduler of diffusers, from the noise that belongs to each image. Samplers' names and
schedulers are made in `samplers`; networks without a pipeline are sampled by its loop.
"""
