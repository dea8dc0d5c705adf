"""What is kept and how: the store, cached results and the names of tasks, rows, places.

Only bytes and references; what they mean is told where they are made.
"""
