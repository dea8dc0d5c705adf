"""One formula a file: Frechet, kernel, precision and recall, CMMD, Inception, class accuracy.

A new metric starts here. `cell_score` and `set_score` put them together. How sure a difference is
is told in `statistics.paired`, who wins in `decisions`.
"""
