"""How a pipeline's own call asks its network for guidance, and what leaves it out at some steps.

Nothing here knows a class of pipelines: it is found from what the network is given in rehearsals.
"""
