"""A scored setting as somebody else uses it: plain diffusers, the evidence for it, a script.

The words and the script's text are made here, from records; the parts of the script lie beside
`script.py` as text. What reads the store, runs the script and compares pictures is
`tasks.shipping`. Nothing here opens a checkpoint or draws an image.
"""
