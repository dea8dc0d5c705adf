"""One formula a file: Frechet, kernel, precision and recall, density and coverage, CMMD, class
accuracy.

A new metric starts here; one that needs no reference, in `alone`. `cell_score` and `set_score` put
them together. How sure a difference is is told in `statistics.paired`, who wins in `decisions`.
"""
