"""How a flow runs: what it was asked for, where its tasks run, signals, waiting, names of runs.

Nothing here knows what a flow computes; the servers it may run on are in `servers`.
"""
