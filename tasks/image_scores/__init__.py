"""Scores of images one by one: a network in the store, a shard judged by it, a cell's mean.

A shard that is judged by one score is not drawn again for another.
"""
