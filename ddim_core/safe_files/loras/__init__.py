"""LoRA files that any trainer wrote: which are epochs of one, of what kind, and for which base.

Names, shapes and settings alone are read here, without torch; `ddim_core.pipelines.loras` lays a
file over a pipeline.
"""
