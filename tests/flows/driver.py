"""Runs a command of `ddim` from the folder it is started in, tagged so that its run is found."""

import pathlib
import sys

from prefect import tags

import ddim_core
import flows
import tasks

for package in (ddim_core, tasks, flows):
    assert pathlib.Path(package.__file__).parents[1] == pathlib.Path.cwd(), package.__file__

import tasks.checkpoints.train  # noqa: E402
from flows.cli.app import main  # noqa: E402 (once it is known whose it is)
from tests.flows.small_batches import dask_setup  # noqa: E402

dask_setup(None)
tasks.checkpoints.train.STEPS_PER_SAVE = 10  # a kill in a short training leaves something to resume
tag = sys.argv.pop(1)
if sys.argv[1] == "grid":
    sys.argv.append("--in-prefect")  # the run is what is looked at, also where nothing changed
with tags(tag):
    main()
