"""The command `ddim paper`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows.cli_options import integers, numbers, one_sentence, option, require_writable


def paper(
    checkpoint: Annotated[str | None, option("Diffusers folder; none: train a toy.")] = None,
    dataset: Annotated[str | None, option("digits, an image folder or a .parquet file.")] = None,
    split: Annotated[str | None, option("The part that is the reference [train, or all].")] = None,
    resolution: Annotated[int | None, option("Pixels, to train on your own data.")] = None,
    steps: Annotated[str | None, option("Table 1's S [10,20,50,100,1000].")] = None,
    etas: Annotated[str | None, option("Table 1's eta, besides sigma-hat [0,0.2,0.5,1].")] = None,
    spacing: Annotated[
        str | None, option("uniform, quad, leading, linspace or trailing [uniform].")
    ] = None,
    n_images: Annotated[int | None, option("Images per cell [1000].")] = None,
    reconstruction_steps: Annotated[
        str | None, option("Table 2's S [10,20,50,100,200,500,1000].")
    ] = None,
    n_reconstructed: Annotated[
        int | None, option("Real images to encode and decode [256].")
    ] = None,
    features: Annotated[
        str | None, option("classifier, inception-v3, pixels [classifier].")
    ] = None,
    feature_weights: Annotated[str | None, option("Weights file of inception-v3.")] = None,
    seed: Annotated[int | None, option("Keys every image's random stream [0].")] = None,
    shard_size: Annotated[int | None, option("Images per unit of work [250].")] = None,
    batch_size: Annotated[int | None, option("Images per network call [256].")] = None,
    threads: Annotated[int | None, option("Torch threads per task [1].")] = None,
    device: Annotated[str | None, option("cpu, or cuda (untested) [cpu].")] = None,
    train_steps: Annotated[int | None, option("Training steps of the toy.")] = None,
    max_broken: Annotated[int | None, option("Broken images to leave out at most [0].")] = None,
    background: Annotated[str | None, option("Colour under transparency [white].")] = None,
    skin_tones: Annotated[bool | None, option("Emoji with all skin tones [on].")] = None,
    runner: Annotated[
        str | None, option("threads, processes, dask[:ADDRESS] or ray[:ADDRESS] [threads].")
    ] = None,
    workers: Annotated[int | None, option("Tasks at once [one per core].")] = None,
) -> None:
    """Run the DDIM paper's tables and figures on one checkpoint, beside the paper's numbers."""
    asked: dict[str, Any] = dict(locals())
    for name in ("steps", "reconstruction_steps"):
        asked[name] = integers(asked[name]) if asked[name] else None
    asked["etas"] = numbers(etas) if etas else None
    _run({name: value for name, value in asked.items() if value is not None})


def _run(asked: dict[str, Any]) -> None:
    with one_sentence():
        require_writable()  # before Prefect is imported, which makes its home there
        from flows.asked import with_defaults
        from flows.paper_request import paper_request

        request = paper_request(with_defaults("paper", asked))
        from flows import waiting
        from flows.running import run

        with waiting.shown(request.line):
            result = run("paper", asked)
        from flows.show import show_grid
        from tasks.paper_report import error_text

        typer.echo("\nSquared error per dimension after encoding and decoding, pixels in [0, 1]:")
        for record in result["reconstructions"]:
            error = error_text(record["mse"], record["mse_low"], record["mse_high"])
            typer.echo(f"  S = {record['steps']:>4}  {error}  n = {record['n']}")
        show_grid(result)
