# ddim-flows with what a team's servers and workers need. `docker compose up` (compose.yaml) uses it.
FROM python:3.11-slim AS wheel
WORKDIR /project
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

FROM python:3.11-slim
COPY constraints.txt /
COPY --from=wheel /dist /dist
RUN pip install --no-cache-dir --constraint /constraints.txt "$(echo /dist/*.whl)[dask,s3,postgres]"
# Runs start in the folder that deployed them: the same in every container.
RUN useradd --create-home --uid 1000 ddim
USER 1000
WORKDIR /home/ddim
CMD ["ddim", "--help"]
