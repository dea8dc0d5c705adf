"""What files on this machine tell of a request that cannot be, before a server starts, a model is
trained or weights are read. Bounds of single parameters are `flows.requests`'s.
"""
