"""How a flow runs: where its tasks run, signals, waiting, the names of runs.

Nothing here knows what a flow computes; the servers it may run on are in `servers`.
"""
