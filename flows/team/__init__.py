"""What a team has settled for its folder: ddim.toml, which the commands read, and prefect.yaml,
which `ddim serve` deploys; how both are first written.

Not here: what the parameters are (`flows.requests`).
"""
