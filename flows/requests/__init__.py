"""What each flow can be asked for: records whose fields are the parameters, declared once.

Not here: what is then done (the flows), and how a terminal asks (`flows.cli.app`).
"""
