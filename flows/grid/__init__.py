"""The parts of a grid: what its cells share, a cell at work, progress, baselines and verdicts.

The flows that use them lie one floor up, a file a deployment.
"""
