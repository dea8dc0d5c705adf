"""The machine and its outer world: devices, workers, servers, what is shown while work goes on.

Nothing here changes a result, and none of it is in a cache key by intent.
"""
