"""The command `ddim data`: what a data set is, and its prepared images as files."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ddim_core.diffusion.specs import ImageSpec
from flows.cli.commands.options import one_sentence, option, stop

SHOWN = 20


def data(
    dataset: Annotated[str, typer.Argument(help="As of `ddim grid --dataset`.")],
    export: Annotated[Path | None, option("Write its images into this new folder.")] = None,
    resolution: Annotated[int | None, option("Pixels of exported images [native].")] = None,
    png: Annotated[bool, option("Export PNG files instead of Parquet.")] = False,
    max_broken: Annotated[int, option("Broken images to leave out at most [0].")] = 0,
    background: Annotated[str, option("Colour under transparency [white].")] = "white",
    skin_tones: Annotated[bool, option("Emoji with all skin tones [on].")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON.")] = False,
) -> None:
    """Show what a data set is: counts, classes, sizes, licence, fingerprint, broken images."""
    with one_sentence():
        spec = ImageSpec(max_broken, background, skin_tones)
        if export is not None:
            _export(dataset, export, resolution, png, spec)
        elif resolution is not None or png:
            stop("--resolution and --png are of --export; give it a folder", 2)
        else:
            _show(dataset, spec, as_json)


def _export(dataset: str, folder: Path, resolution: int | None, png: bool, spec: ImageSpec) -> None:
    from ddim_core.images.export import export_parquet, export_png
    from ddim_core.images.load import load_images, splits_of
    from ddim_core.images.sources.source import ALL

    splits = [split for split in splits_of(dataset) if split != ALL] or [ALL]
    write = export_png if png else export_parquet
    loaded = (load_images(dataset, split, resolution, spec=spec) for split in splits)
    for path in write(loaded, folder):
        typer.echo(path)


def _show(dataset: str, spec: ImageSpec, as_json: bool) -> None:
    from ddim_core.images.summary import survey

    found = survey(dataset, spec)
    if as_json:
        splits = [
            {**asdict(split), "sizes": [[*size, n] for size, n in split.sizes.items()]}
            for split in found.splits
        ]
        about = {"name": found.name, "licence": found.licence, "splits": splits,
                 "notes": found.notes}  # fmt: skip
        typer.echo(json.dumps(about, indent=2))
        return
    typer.echo(f"{found.name}: licence {found.licence or 'not known'}")
    typer.echo(f"\n{'split':>12} {'images':>8} {'broken':>7}  {'native size':<24} fingerprint")
    for split in found.splits:
        typer.echo(
            f"{split.split:>12} {split.n:>8} {len(split.broken):>7}  {_sizes(split.sizes):<24} "
            f"{split.fingerprint[:16]}"
        )
    for note in found.notes:
        typer.echo(f"note: {note}")
    _show_classes([(split.split, split.classes) for split in found.splits])
    for split in found.splits:
        if split.captions:
            typer.echo(f"\n{split.split} captions: {'; '.join(split.captions)}; ...")
        for name in split.broken[:SHOWN]:
            typer.echo(f"broken in {split.split}: {name}")
        if len(split.broken) > SHOWN:
            typer.echo(f"broken in {split.split}: {len(split.broken) - SHOWN} more (--json: all)")


def _show_classes(splits: list[tuple[str, dict[str, int]]]) -> None:
    names = list(dict.fromkeys(name for _, classes in splits for name in classes))
    if not names:
        typer.echo("\nno classes: score with --features inception-v3 or pixels")
        return
    width = max(12, *(len(name) for name in names))
    typer.echo(f"\n{'class':>{width}} " + " ".join(f"{split:>8}" for split, _ in splits))
    for name in names:
        counts: list[Any] = [classes.get(name, "-") for _, classes in splits]
        typer.echo(f"{name:>{width}} " + " ".join(f"{count:>8}" for count in counts))


def _sizes(sizes: dict[tuple[int, int], int]) -> str:
    small, large = (f"{width}x{height}" for width, height in (min(sizes), max(sizes)))
    return small if len(sizes) == 1 else f"{small} to {large}, {len(sizes)} sizes"
