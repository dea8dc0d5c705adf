"""LoRAs that somebody else trained, over tiny pipelines of three families: drawn, ranked, told."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from mlflow import MlflowClient
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from benchmarks.lora_epochs import RECIPE, pictures, trained
from ddim_core.lora.data import write_captioned
from ddim_core.pipelines.arguments import Setting
from ddim_core.pipelines.drawing import draw
from ddim_core.pipelines.loras import lay_over
from ddim_core.pipelines.opening import open_pipeline
from ddim_core.safe_files.loras.files import epoch_files, lora_bytes
from ddim_core.samplers.name import parse_sampler
from ddim_core.text2image.embedded import embedded_base
from flows.requests.watch import Watch
from tasks.checkpoints.arrivals import candidates, read_whole
from tasks.checkpoints.identity import is_scored, mark_scored
from tasks.images.prepare import content_of
from tasks.lora.epochs.base import ScoredBase, asked_prompts
from tasks.lora.epochs.files import digest_of_loras, store_epochs, told_apart
from tasks.lora.epochs.real import RealImages, require_unseen
from tasks.lora.scoring.table import read_lora_table
from tasks.storage import store
from tasks.storage.store import ArtifactRef
from tests.core.pipelines.tiny import PIPELINES
from tests.lora.material import noise_pictures


def write_layer(file: Path, number: float) -> None:
    a, b = torch.full((2, 4), number), torch.full((4, 2), number)
    save_file({"unet.to_q.lora_A.weight": a, "unet.to_q.lora_B.weight": b}, file)


def write_epochs(pipeline: Any, folder: Path) -> None:
    """Two epochs, of diffusers' layout and of PEFT's; the second moves pictures further."""
    part = "unet" if hasattr(pipeline, "unet") else "transformer"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
        model = peft.get_peft_model(getattr(pipeline, part), config)
    state = peft.get_peft_model_state_dict(model)
    plain = {name.removeprefix("base_model.model."): 0.1 * x for name, x in state.items()}
    type(pipeline).save_lora_weights(folder / "checkpoint-10", **{f"{part}_lora_layers": plain})
    model.save_pretrained(folder / "checkpoint-20")


def write_diverged(folder: Path) -> None:
    """A third epoch, the numbers of which are none."""
    shutil.copytree(folder / "checkpoint-20", folder / "checkpoint-30")
    file = folder / "checkpoint-30" / "adapter_model.safetensors"
    save_file({name: x * torch.nan for name, x in load_file(file).items()}, file)


def asked(family: str, tmp_path: Path) -> dict[str, Any]:
    tiny = PIPELINES[family]
    folder = tmp_path / family
    tiny.make().save_pretrained(folder / "base")
    write_epochs(tiny.make(), folder / "epochs")
    told = {name: x.contiguous().clone() for name, x in tiny.conditions(range(3)).items()}
    save_file(told, folder / "prompts.safetensors")
    write_captioned(noise_pictures(5), folder / "images")
    return {
        "loras": [str(folder / "epochs")], "base": str(folder / "base"),
        "prompts": str(folder / "prompts.safetensors"), "style_images": str(folder / "images"),
        "scales": [1.0], "steps": 2,
    }  # fmt: skip


def test_files_of_three_families_are_drawn_ranked_and_told(server: str, tmp_path: Path) -> None:
    from flows.lora_score import lora_score

    for family in ("sdxl", "sd3", "flux"):
        words = asked(family, tmp_path)
        if family == "sd3":
            write_diverged(tmp_path / family / "epochs")
        made = lora_score(**words)
        left_out = [said for said in made.scorecard.reading if "is left out" in said]
        assert [said.split(" is")[0] for said in left_out] == ["checkpoint-30"] * (family == "sd3")
        rows = read_lora_table().set_index("row_digest").loc[list(made.scorecard.rows)]
        assert sorted(set(rows["lora"])) == ["checkpoint-10", "checkpoint-20"]
        assert sorted(set(rows["lora_number"])) == [10, 20]
        assert set(rows["rank"]) == {2}
        gains = rows[rows["scale"] == 1.0].set_index("lora")["likeness_gain"]
        assert (gains != 0.0).all()  # each moved the pictures
        assert rows[rows["scale"] == 0.0]["usable_gain"].eq(0.0).all()
        assert made.scorecard.reading[0].startswith(("Ship checkpoint-", "Ship none: "))
        page = store.read(str(made.scorecard.report)).decode()
        assert page.count('src="data:image/png;base64,') == 2
    foreign = {**words, "loras": [str(tmp_path / "sdxl" / "epochs")]}
    with pytest.raises(ValueError, match=r"^checkpoint-\d0 does not fit base: "):
        lora_score(**foreign)  # those of SDXL over Flux
    (experiment,) = MlflowClient().search_experiments(filter_string="name = 'lora-scorecard'")
    runs = MlflowClient().search_runs([experiment.experiment_id])
    assert {run.data.params["lora"] for run in runs} == {"checkpoint-10", "checkpoint-20"}
    assert len(runs) == 6


def test_the_benchmark_of_epochs_writes_files_that_are_scored(tmp_path: Path) -> None:
    items = pictures(tmp_path / "images")
    spec = replace(RECIPE, steps=2, checkpoint_every=1)
    place = str(tmp_path / "epochs" / "unicorn-{:06d}.safetensors")
    captions = [item.caption for item in items]
    assert list(trained(embedded_base(), items, captions, spec, place)) == [1, 2]
    stored = store_epochs([str(tmp_path / "epochs")])
    assert [(one.name, one.number) for one in stored] == [
        ("unicorn-000001", 1),
        ("unicorn-000002", 2),
    ]


def test_files_of_one_name_are_told_apart_and_one_saved_twice_counts_once(tmp_path: Path) -> None:
    for folder, number in (("one", 1.0), ("two", 2.0)):
        (tmp_path / folder).mkdir()
        write_layer(tmp_path / folder / "cat.safetensors", number)
        write_layer(tmp_path / folder / "cat-000001.safetensors", number)
    stored = store_epochs([str(tmp_path / "one"), str(tmp_path / "two"), str(tmp_path / "one")])
    assert [one.name for one in stored] == ["cat-000001"] * 2
    names = [one.name for one in told_apart(stored)]
    assert names == [f"cat-000001 {one.artifact[:6]}" for one in stored]
    write_layer(tmp_path / "base.safetensors", 3.0)  # not shown in place of the base's own
    (one,) = told_apart(store_epochs([str(tmp_path / "base.safetensors")]))
    assert one.name == f"base {one.artifact[:6]}"


def test_a_prompt_given_twice_and_held_out_images_that_were_trained_on_are_named(
    tmp_path: Path,
) -> None:
    (tmp_path / "p.txt").write_text("a cat\na dog\na cat\n")
    base = ScoredBase(ArtifactRef("x", "folder"), "base", "FluxPipeline", 16, 3.5)
    with pytest.raises(ValueError, match=r"p\.txt has 'a cat' twice"):
        asked_prompts.fn(str(tmp_path / "p.txt"), base)
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)

    def stored(x: np.ndarray) -> RealImages:
        return RealImages(**vars(store.put_arrays({"images": x}, "real images")), n_images=len(x))

    assert require_unseen.fn(stored(images[1:]), stored(images[:2]), "photos") == 1
    with pytest.raises(ValueError, match="all 1 held-out images of photos are among the training"):
        require_unseen.fn(stored(images[:1]), stored(images), "photos")


def write_opposites(pipeline: Any, one: Path, other: Path) -> None:
    """A LoRA of the last layer, and its negative."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = peft.LoraConfig(
            r=2, lora_alpha=1000, target_modules=["conv_out"], init_lora_weights=False
        )
        model = peft.get_peft_model(pipeline.unet, config)
    model.save_pretrained(one)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = -parameter.data
    model.save_pretrained(other)


def test_a_lora_proven_worse_shuts_the_gate_and_the_better_one_opens_it(
    server: str, tmp_path: Path
) -> None:
    """The style is what one of two LoRAs draws of other prompts, from other noise."""
    from flows.cli.commands.lora import lora

    tiny, n = PIPELINES["sdxl"], 24
    tiny.make().save_pretrained(tmp_path / "base")
    write_opposites(tiny.make(), tmp_path / "meant", tmp_path / "other")
    conditions = tiny.conditions(range(n))
    save_file(
        {k: x.contiguous().clone() for k, x in conditions.items()}, tmp_path / "p.safetensors"
    )
    opened = open_pipeline(tmp_path / "base", resolution=tiny.resolution)
    lay_over(opened, [lora_bytes(*epoch_files(tmp_path / "meant"))], [1.0])
    setting = Setting(parse_sampler("own"), 2, 5.0, seed=1)
    (tmp_path / "style").mkdir()
    others = tiny.conditions(range(100, 100 + 2 * n))
    for i, image in enumerate(draw(opened, setting, range(2 * n), others, 2 * n).images):
        Image.fromarray(image).save(tmp_path / "style" / f"{i}.png")

    def gated(new: str, against: str, *more: str) -> Any:
        return CliRunner().invoke(
            lora,
            ["score", str(tmp_path / new), "--against", str(tmp_path / against), "--gate",
             "--base", str(tmp_path / "base"), "--prompts", str(tmp_path / "p.safetensors"),
             "--style-images", str(tmp_path / "style"), "--scales", "1", "--steps", "2", *more],
        )  # fmt: skip

    worse, better = gated("other", "meant"), gated("meant", "other", "--json")
    assert (worse.exit_code, better.exit_code) == (1, 0), worse.output + better.output
    assert "Verdict: worse than the best of " in worse.output
    told = json.loads(better.stdout)
    assert told["call"] == "better"
    assert {(row["lora"], row["scale"]) for row in told["rows"]} == {
        (name, scale) for name in ("meant", "other") for scale in (0.0, 1.0)
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{nowhere}"], "there is no file or folder"),
        (["{empty}"], "empty holds no LoRA; there must be .safetensors files"),
        (["{pickle}"], "lora.pt is a pickle, which can run code and is not opened"),
        ([], "no LoRA is given"),
        (["{lora}", "--prompts", "{nowhere}"], "there is no file of prompts"),
        (["{lora}"], "style_images or subject_images say what the LoRA should draw, and neither"),
        (["{lora}", "--style-images", "{empty}"], "holds no image"),
        (["{lora}", "--style-images", "{images}", "--scales", "0"], "scales holds 0 alone"),
        (["{lora}", "--style-images", "{images}", "--scales", "1e9"], "a scale is 1000000000.0"),
        (
            ["{lora}", "--style-images", "{images}", "--held-out-images", "{images}/."],
            "the style's own images; give others",
        ),
        (
            ["{lora}", "--style-images", "{images}", "--images-per-prompt", "100000000"],
            "images_per_prompt is 100000000, which makes 100000000 pictures of the prompts",
        ),
        (["{lora}", "--style-images", "{images}", "--gate"], "a gate needs a LoRA to beat"),
        (["{lora}", "--style-images", "{images}", "--samplers", "eule"], "eule"),
        (["{lora}", "--style-images", "{images}", "--base", "/no/such"], "/no/such"),
    ],
)
def test_bad_input_ends_in_one_sentence_and_exit_code_2(
    tmp_path: Path, words: list[str], said: str
) -> None:
    from flows.cli.commands.lora import lora

    places = {name: tmp_path / name for name in ("nowhere", "empty", "images")}
    places |= {"lora": tmp_path / "a.safetensors", "pickle": tmp_path / "lora.pt"}
    places["empty"].mkdir()
    places["pickle"].write_bytes(b"cposix\n")
    write_layer(places["lora"], 1.0)
    write_captioned(noise_pictures(2), places["images"])
    (tmp_path / "prompts.txt").write_text("a cat\n")
    given = ["score", *(word.format(**places) for word in words)]
    if "--prompts" not in words:
        given += ["--prompts", str(tmp_path / "prompts.txt")]
    answer = CliRunner().invoke(lora, given)
    assert answer.exit_code == 2, answer.output
    assert said in " ".join(answer.output.split())


def test_a_watched_folder_of_loras_is_scored_whole_once_for_what_it_holds(tmp_path: Path) -> None:
    folder, prompts = tmp_path / "epochs", tmp_path / "prompts.txt"
    folder.mkdir()
    prompts.write_text("a cat\n")
    write_captioned(noise_pictures(2), tmp_path / "images")
    lora = {"prompts": str(prompts), "style_images": str(tmp_path / "images")}
    watch = Watch([str(folder)], lora=lora, settle_seconds=0.0)
    watch.check()

    def write(epoch: int) -> Path:
        file = folder / f"cat-{epoch:06d}.safetensors"
        write_layer(file, float(epoch))
        return file

    def looked() -> list[str]:
        found = candidates(str(folder))
        return [read_whole(one, lambda _: digest_of_loras([str(folder)]))[1] for one in found]

    (job,) = watch.jobs(write(1))
    assert (job.flow, job.name) == ("lora-score", "epochs")
    assert job.parameters["loras"] == [str(folder)]
    assert watch.jobs(write(2)) == [job]  # both files have the folder scored, once
    first, again = looked()
    assert first == again
    identity = job.request.identity(content_of(job.request.real.dataset))
    assert not is_scored(identity, first)
    mark_scored(identity, first, [])
    assert is_scored(identity, first)
    older = tmp_path / "older.safetensors"
    shutil.copy(folder / "cat-000001.safetensors", older)

    def identified(**told: Any) -> str:
        (other,) = Watch([str(folder)], lora=lora | told).jobs(folder / "cat-000001.safetensors")
        return str(other.request.identity("images"))

    before = identified(against=str(older))
    assert before != identified()
    assert before == identified(against=str(older), gate=True)
    shutil.copy(folder / "cat-000002.safetensors", older)
    assert before != identified(against=str(older))  # the same name, another content
    write(3)
    assert not is_scored(identity, looked()[0])  # a new epoch: the folder is another
    with pytest.raises(ValueError, match="lora scores LoRAs, and grid and tune checkpoints"):
        Watch([str(folder)], grid={"steps": [10]}, lora=lora).check()
    with pytest.raises(ValueError, match="lora-score takes no promts"):
        Watch([str(folder)], lora={"promts": "x"}).check()
