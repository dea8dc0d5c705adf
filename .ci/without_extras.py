"""As `sitecustomize`: every process of a folder's Python finds no package of an extra."""

import sys

EXTRAS = {
    "boto3", "cleanfid", "dask", "distributed", "duckdb", "hypothesis", "ipykernel", "mkdocs",
    "moto", "nbclient", "prefect_dask", "prefect_ray", "psycopg2", "pytest", "pytorch_fid", "ray",
    "s3fs", "timm",
}  # fmt: skip


class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, *rest):
        return None if name in EXTRAS else self.finder.find_spec(name, *rest)


sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
