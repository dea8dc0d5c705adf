"""Trains a small text-to-image base, judges its pictures, and writes it with its card."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from prefect import flow

from ddim_core.common.digest import digest
from ddim_core.diffusion.specs import Execution
from ddim_core.text2image.base_folder import locate_base, part_digests
from ddim_core.text2image.embedded import judge_digest
from ddim_core.text2image.specs import JudgeSpec
from flows.requests.base import BaseRequest
from flows.requests.flat import flat
from flows.run.naming import flow_name
from tasks.lora.scoring.pictures import draw_prompts
from tasks.storage import places
from tasks.storage.naming import named
from tasks.storage.store import check_writable, get_folder
from tasks.text2image.base_card import Judged, base_prompts, judge_base, write_base_card
from tasks.text2image.judge import train_emoji_judge
from tasks.text2image.train_base import train_text2image


@dataclass(frozen=True)
class TrainedBase:
    """The base's folder and digest, and what the judge found of pairs that were seen and unseen."""

    folder: str
    digest: str
    seen: Judged
    unseen: Judged


@flow(name="train-base", flow_run_name=flow_name, validate_parameters=False)
@flat
def train_base(request: BaseRequest) -> TrainedBase:
    """Trains the small base on scenes of emoji; goes on where a killed or a shorter run stopped.

    Raises:
        ValueError: If the request cannot be.
    """
    check_writable()
    spec, resolution, shipped = request.training(), request.resolution, judge_digest()
    start = str(locate_base(request.start).resolve()) if request.start else ""
    if start:
        spec = replace(spec, start=digest(part_digests(Path(start))))
    execution = Execution(device=request.device, batch_size=32)
    trained = train_text2image(spec, execution, location=start)
    judge = train_emoji_judge(
        JudgeSpec(resolution=resolution, steps=request.judge_steps), shipped, Execution()
    )
    folder = get_folder(trained)
    asked, drawn, found = {}, {}, {}
    for unseen in (False, True):
        asked[unseen] = base_prompts(unseen, request.picture_steps, request.guidance, resolution)
        drawn[unseen] = draw_prompts(
            asked[unseen], part_digests(folder), None, 0.0,
            location=str(folder), execution=execution,
        )  # fmt: skip
        found[unseen] = judge_base(unseen, drawn[unseen], judge)
    place = named(write_base_card, "write base card")(
        trained, spec, asked[True], found[False], found[True], drawn[True],
        judge, request.output or str(places.local_dir("bases", trained.artifact[:12])),
        start,
    )  # fmt: skip
    return TrainedBase(place, trained.artifact, found[False], found[True])
