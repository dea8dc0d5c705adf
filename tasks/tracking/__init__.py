"""MLflow, and nothing but MLflow: the only room that imports it. Written from records, never asked.

What could not be told waits in `outbox`.
"""
