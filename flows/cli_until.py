"""The options of `ddim grid --until-decided`, and what they run."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows.cli_options import one_sentence, option, require_writable, stop

RACE = "Until decided"
UntilDecided = Annotated[
    bool,
    typer.Option(
        "--until-decided",
        rich_help_panel=RACE,
        help="More images only for cells whose rank is open.",
    ),
]
Confidence = Annotated[float | None, option("Of the decision, with --until-decided [0.95].", RACE)]
Budget = Annotated[
    int | None,
    option("Most images of all cells, with --until-decided [half the full grid's].", RACE),
]
AskedGoal = Annotated[
    str | None, option("With --until-decided: best, or front (of FID against calls) [best].", RACE)
]


NOT_OF_A_RACE = ("matrix_images", "against", "at", "margin", "gate", "promote")


def refuse_race_options(race: dict[str, Any]) -> None:
    """Stops a plain grid that was given options of a race: it would not heed them."""
    given = [f"--{name}" for name, value in race.items() if value is not None]
    if given:
        stop(f"{', '.join(given)} needs --until-decided", 2)


def run_until_decided(asked: dict[str, Any]) -> None:
    """Runs the race and prints what it decided."""
    refused = [f"--{name.replace('_', '-')}" for name in NOT_OF_A_RACE if name in asked]
    if refused:
        stop(f"{', '.join(refused)} needs a whole grid; leave out --until-decided", 2)
    with one_sentence():
        require_writable()  # before Prefect is imported, which makes its home there
        from flows.asked import with_defaults
        from flows.race_request import race_request

        request = race_request(with_defaults("until_decided", asked))
        from flows import waiting
        from flows.running import run

        with waiting.shown(f"until decided, {request.line}"):
            result = run("until_decided", asked)
        from flows.show import show_grid

        show_grid(result)
