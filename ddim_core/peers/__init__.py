"""Other people's whole protocols: which features, which estimators, under which names.

`catalogue` declares them; `numbers` and `half_precision` compute what is not ours already.
"""
