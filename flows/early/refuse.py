"""The one door: every command, and the watch, has its request looked over here first.

What looks is imported by the requests that need it: torch takes seconds, in which else a server
would start.
"""

from __future__ import annotations

from functools import singledispatch

from flows.requests.base import BaseRequest
from flows.requests.grid import GridRequest
from flows.requests.lora import StyleRequest, SubjectRequest
from flows.requests.paper import PaperRequest
from flows.requests.race import RaceRequest, SnapshotRequest
from flows.requests.tuning import TuneRequest


@singledispatch
def refuse(request: object) -> None:
    """Refuses a request that cannot be, as far as files on this machine tell without their weights;
    what lies elsewhere is told once it is fetched. Most requests are whole once constructed.

    Raises:
        ValueError: If it cannot be, with what would be right.
    """


@refuse.register
def _(request: GridRequest) -> None:
    from flows.early.grids import refuse_grid

    refuse_grid(request)


@refuse.register
def _(request: RaceRequest) -> None:
    refuse(request.whole)


@refuse.register
def _(request: PaperRequest) -> None:
    refuse(request.table1)


@refuse.register
def _(request: SnapshotRequest) -> None:
    from tasks.checkpoints.arrivals import snapshots_in

    for location in request.of.checkpoints:
        refuse(request.grid_of(snapshots_in(location)[0][0]))


@refuse.register
def _(request: TuneRequest) -> None:
    from flows.early.tunings import refuse_tuning

    refuse_tuning(request)


@refuse.register
def _(request: BaseRequest) -> None:
    from ddim_core.text2image.embedded import judge_digest

    judge_digest()


@refuse.register
def _(request: StyleRequest) -> None:
    from flows.lora.plan import style_plan

    style_plan(request.settled())


@refuse.register
def _(request: SubjectRequest) -> None:
    from flows.lora.plan import subject_plan

    subject_plan(request.settled())
