"""The flows, and the `ddim` command. Importing `tasks` first settles what Prefect will read."""

import tasks  # noqa: F401
