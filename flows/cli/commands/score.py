"""The commands `ddim score` and `ddim export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.commands.options import one_sentence, option, require_writable

if TYPE_CHECKING:
    from tasks.score_command.request import ScoreRequest
    from tasks.score_command.run import PairResult, SavedStatistics


def score(
    generated: Annotated[
        str, typer.Argument(help="Images, a cell's digest, or an .npz: what is judged.")
    ],
    reference: Annotated[
        str | None, typer.Argument(help="The same kinds: what it is judged against.")
    ] = None,
    features: Annotated[
        str | None,
        option(
            "inception-v3, inception-v3-spatial (sFID), afhq-inception, clip-vit-b-32, "
            "clip-vit-l-14-336 (CMMD), dinov2-vit-b-14, dinov2-vit-l-14, timm:NAME, "
            "transformers:FOLDER or pixels, also with the resize behind it [a cell's own, else "
            "inception-v3]."
        ),
    ] = None,
    feature_weights: Annotated[str, option("File, folder or hub id of its weights.")] = "",
    resize: Annotated[
        str,
        option("Native size to network: tf1, clean, torch, pillow, bicubic, crop [its usual one]."),
    ] = "",
    split: Annotated[str, option("The part of the reference to take [all].")] = "all",
    resolution: Annotated[
        int | None, option("First bring both sets to this size, as data for a model.")
    ] = None,
    save_stats: Annotated[
        Path | None, option("Write the reference's statistics, as pytorch-fid reads them (.npz).")
    ] = None,
    as_stored: Annotated[
        bool, typer.Option("--as-stored", help="Drop alpha and orientation, as peers do.")
    ] = False,
    peer: Annotated[
        str,
        typer.Option(
            "--as",
            metavar="PEER",
            help="By a peer's whole protocol, under its names: adm, edm2, dgm-eval, "
            "torch-fidelity, clean-fid or pytorch-fid. --features then takes one of its spaces "
            "alone, and --feature-weights FILE,FOLDER where it has two.",
        ),
    ] = "",
    matrix: Annotated[
        bool, typer.Option("--matrix", help="Also by every other extractor and resize at hand.")
    ] = False,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="Also each class by itself, by the sets' labels.")
    ] = False,
    device: Annotated[
        str, option("What takes the features: cpu, cuda, cuda:1, mps, or auto [cpu].")
    ] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """Score one set of images against another, with intervals and the protocol.

    A set is a folder of images, a Parquet or Arrow data set with an image column, digits, a cell's
    digest (or a beginning of it), an .npz of mu and sigma (pytorch-fid, clean-fid, EDM, ADM), a
    .pkl of EDM2's statistics, or an .npz of features. With --save-stats and one set alone, its
    statistics are written.
    """
    with one_sentence():
        require_writable()
        from tasks.score_command.request import ScoreRequest

        request = ScoreRequest(
            generated, reference, features, feature_weights, resize, split, resolution, save_stats,
            as_stored, per_class, peer, device,
        )  # fmt: skip
        if matrix and (reference is None or peer):
            raise ValueError("a matrix of protocols needs two sets of images, and no --as")
        request.check()
        from flows.run import waiting

        against = f" against {reference}" if reference else ""
        with waiting.shown(f"score: {generated}{against}"):
            result = _scored(request, matrix)
        from tasks.score_command import run, text

        shown = json.dumps(run.as_json(result), indent=2) if as_json else text.as_text(result)
        typer.echo(shown)


def _scored(request: ScoreRequest, matrix: bool) -> PairResult | SavedStatistics:
    from tasks.storage import stages

    stages.begin("importing the networks")
    from tasks.score_command.matrix import score_matrix
    from tasks.score_command.run import PairResult, run_score

    stages.begin("reading, taking features and scoring")
    if request.peer:
        from tasks.score_command.peer import score_as

        return score_as(request)
    result = run_score(request)
    if matrix and isinstance(result, PairResult):
        stages.begin("scoring by every other protocol")
        return score_matrix(request, result)
    return result


def export(
    cell: Annotated[str, typer.Argument(help="A cell's digest, or a beginning of it.")],
    out: Annotated[Path, typer.Argument(help="The folder, or the .parquet file, to write.")],
) -> None:
    """Write a cell's images as PNG files, or as a Parquet data set that load_dataset opens."""
    with one_sentence():
        from flows.run import waiting

        with waiting.shown(f"export: {cell}"):
            from tasks.cells.export import export_cell

            n_images = export_cell(cell, out)
        typer.echo(f"{n_images} images: {out}")
