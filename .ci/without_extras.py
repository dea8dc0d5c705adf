"""As `sitecustomize`: every process of a folder's Python is without the packages of the extras."""

import sys
from importlib.abc import MetaPathFinder

EXTRAS = {
    "boto3", "cleanfid", "dask", "distributed", "duckdb", "hypothesis", "mkdocs", "moto",
    "prefect_dask", "prefect_ray", "psycopg2", "pytest", "pytorch_fid", "ray", "s3fs", "timm",
}  # fmt: skip


class Without(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in EXTRAS:
            raise ModuleNotFoundError(f"{name} is of an extra", name=name)


sys.meta_path.insert(0, Without())
