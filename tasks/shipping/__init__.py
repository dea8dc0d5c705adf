"""A scored cell handed over to those who draw with plain diffusers: written, tried, then given.

What is written is made in `ddim_core.shipping`; here the store is read, the script is run in a
process without this project, and its pictures are compared with the cell's.
"""
