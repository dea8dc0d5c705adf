"""How far two sets of features are apart: Frechet and kernel distances, with their intervals.

Formulas of what all intervals share lie in `statistics`; what a whole score is made of, one room
above.
"""
