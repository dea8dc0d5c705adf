"""MLflow's database below DDIM_DATA: there whole or not at all, whenever its making is killed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ddim_core.common.late import late
from tasks.storage.places import default_tracking_uri, local_dir

if TYPE_CHECKING:
    import mlflow
else:
    mlflow = late("mlflow")


def client() -> mlflow.MlflowClient:
    """Returns a client of the MLflow that MLFLOW_TRACKING_URI names; its own database is made
    where there is none."""
    if os.environ["MLFLOW_TRACKING_URI"] == default_tracking_uri():
        make_database()
    return mlflow.MlflowClient()


def make_database() -> None:
    """Makes the database below DDIM_DATA, if it has none, beside its place and then moves it there.

    MLflow itself makes it in its place, step by step, and cannot go on with one that was left
    half-way.
    """
    place = local_dir("mlflow.db")
    if place.exists():
        return
    # As `mlflow db upgrade` does.
    from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine

    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".mlflow-", dir=place.parent) as folder:
        made = Path(folder, "mlflow.db")
        engine = create_sqlalchemy_engine(f"sqlite:///{made}")
        _initialize_tables(engine)
        engine.dispose()
        try:
            os.link(made, place)
        except FileExistsError:  # another process was first
            return
        except OSError:  # a file system without hard links
            if not place.exists():
                made.replace(place)
