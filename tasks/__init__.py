"""One Prefect task per arrow of the pipeline; importing this settles the environment first."""

from tasks.storage.places import set_environment

set_environment()
