"""Prefect's and MLflow's servers on this machine, started, found and guarded; and the worker.

Addresses of other machines come from the environment and are not made here.
"""
