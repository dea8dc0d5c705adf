"""The script draws what this project draws, in all forms, without importing it."""

from __future__ import annotations

import ast
import functools
import json
import runpy
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file

from ddim_core.checkpoints.checkpoint import WEIGHTS_NAME, load_checkpoint, save_pipeline
from ddim_core.checkpoints.conditioning import conditioned
from ddim_core.diffusion.noise import ImageNoise
from ddim_core.diffusion.sampling import plan, sample
from ddim_core.diffusion.specs import NoiseSpec, SamplerSpec
from ddim_core.images.pixels import to_uint8
from ddim_core.networks.building import seeded_weights
from ddim_core.networks.denoisers import toy_unet
from ddim_core.networks.specs import ToyModelSpec
from ddim_core.pipelines.arguments import Setting, call_arguments
from ddim_core.pipelines.drawing import draw as draw_pipeline
from ddim_core.pipelines.fitting import halves_of, where_it_asks
from ddim_core.pipelines.takes import networks_of
from ddim_core.samplers.families import inside_of
from ddim_core.samplers.loop import draw
from ddim_core.samplers.name import parse_sampler
from ddim_core.samplers.scheduler import scheduler_for, set_steps
from ddim_core.samplers.streams import image_streams
from ddim_core.shipping.listed import listed_steps, set_steps_of
from ddim_core.shipping.script import (
    Asked,
    BareNetwork,
    NativeSteps,
    PipelineCall,
    SchedulerSteps,
    Shared,
    native_script,
    pipeline_script,
    scheduler_script,
)
from tests.core.pipelines.tiny import PIPELINES, opened_of

N, SEED = 3, 7
ALLOWED = {"argparse", "copy", "diffusers", "functools", "hashlib", "inspect", "itertools", "json",
           "math", "numpy", "pathlib", "PIL", "safetensors.torch", "torch"}  # fmt: skip
SHARED = Shared("ab" * 32, "", SEED, (1, 8, 8), N, 2, "float32", "cpu")
BARE = BareNetwork("unet", "UNet2DModel", "", "", 0, 0, False, 1.0)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny U-Nets, one told of three classes, one told the time by wider and slower sinusoids, one
    that predicts a variance too."""
    folder = tmp_path_factory.mktemp("networks")
    for name, n_classes in (("plain", None), ("classes", 3), ("wide", None), ("variance", None)):
        spec = ToyModelSpec(widths=(8, 8), norm_groups=4, n_classes=n_classes)
        save_pipeline(folder / name, toy_unet(spec, 0), NoiseSpec(), None)
    unet = folder / "wide" / "unet"
    config = json.loads((unet / "config.json").read_text())
    config |= {"_class_name": "WideTimeUNet2DModel", "time_features": 16, "time_scale": 0.5}
    (unet / "config.json").write_text(json.dumps(config))
    with seeded_weights(1):
        wide = torch.nn.Linear(16, 32)  # where the plain one has 8 features
    weights = load_file(unet / WEIGHTS_NAME) | {"time_embedding.linear_1.weight": wide.weight.data}
    save_file(weights, unet / WEIGHTS_NAME)
    unet = folder / "variance" / "unet"
    weights = load_file(unet / WEIGHTS_NAME)
    for kind in ("weight", "bias"):
        weights[f"conv_out.{kind}"] = weights[f"conv_out.{kind}"].repeat_interleave(2, 0)
        weights[f"conv_out.{kind}"][1] += 1.0
    save_file(weights, unet / WEIGHTS_NAME)
    says = {"unet/config.json": {"out_channels": 2},
            "scheduler/scheduler_config.json": {"variance_type": "learned"}}  # fmt: skip
    for file, change in says.items():
        path = folder / "variance" / file
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    return folder


OWN = {**diffusers.DDPMScheduler().config, "_class_name": "DDPMScheduler"}
loaded_of = functools.cache(load_checkpoint)  # it is traced once


def drawn_by(script: str, checkpoint: Path, folder: Path) -> NDArray[np.uint8]:
    """Runs a script in this process, which has the libraries in memory already."""
    (folder / "sample.py").write_text(script)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["sample.py", str(checkpoint), "--out", str(folder / "out")])
        runpy.run_path(str(folder / "sample.py"), run_name="__main__")
    pictures = [np.asarray(Image.open(path)) for path in sorted((folder / "out").iterdir())]
    return np.stack([p if p.ndim == 3 else p[..., None] for p in pictures])


def assert_equal(found: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> None:
    assert found.shape == wanted.shape
    assert np.abs(found.astype(int) - wanted.astype(int)).max() <= 1
    assert wanted.std() > 1.0


@pytest.mark.parametrize(
    "name", ["noise", "streams", "starts", "interval", "unet", "wide_time", "network", "native",
             "scheduler", "pipeline", "main"],
)  # fmt: skip
def test_parts_end_in_one_line(name: str) -> None:
    from ddim_core.shipping import script

    text = Path(script.__file__).with_name(f"script.{name}.txt").read_text()
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert max(map(len, text.splitlines())) <= script.WIDTH


def scripts() -> Sequence[str]:
    native = NativeSteps("epsilon", 0.5, False, 0.0, False, [500, 0], [0.1, 0.9])
    steps = SchedulerSteps("HeunDiscreteScheduler", {"num_inference_steps": 2}, 0.0)
    call = PipelineCall("DiTPipeline", [], "DDIMScheduler", {}, 0.0, {}, [], False, False,
                        "float32", [])  # fmt: skip
    wide = replace(BARE, network_class="WideTimeUNet2DModel")
    return [
        native_script(SHARED, BARE, native), native_script(SHARED, wide, native),
        scheduler_script(SHARED, BARE, steps), pipeline_script(SHARED, call),
        pipeline_script(SHARED, replace(call, takes_latents=True)),
        pipeline_script(SHARED, call, Asked(("x",), True, ("unet",))),
    ]  # fmt: skip


def test_scripts_import_what_they_use_and_nothing_of_ours() -> None:
    for text in scripts():
        tree = ast.parse(text)
        named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        for node in tree.body:
            if isinstance(node, ast.Import):
                assert node.names[0].name in ALLOWED
                assert (node.names[0].asname or node.names[0].name) in named
            elif isinstance(node, ast.ImportFrom):
                assert node.module in ALLOWED


def test_what_a_stranger_named_is_never_code() -> None:
    name = '"""\nimport os  # ' + "x" * 120
    text = native_script(
        replace(SHARED, checkpoint=name), BARE,
        NativeSteps("epsilon", 0.0, False, 0.0, False, [0], [0.9]),
    )  # fmt: skip
    (found,) = (
        node.value
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CHECKPOINT"
    )
    assert ast.literal_eval(found) == name


@pytest.mark.parametrize(
    ("network", "asked"),
    [
        ("plain", {"steps": 4, "eta": 0.5}),
        ("plain", {"steps": 3, "variance": "sigma_hat", "clip": True}),
        ("plain", {"steps": 4, "prediction_type": "v_prediction", "eta": 1.0}),
        ("plain", {"steps": 4, "prediction_type": "sample", "spacing": "quad"}),
        ("wide", {"steps": 2}),
        ("variance", {"steps": 3}),
        ("classes", {"steps": 3, "guidance_scale": 3.0}),
        ("classes", {"steps": 3, "guidance_scale": 0.0}),
        ("classes", {"steps": 4, "guidance_scale": 3.0, "guidance_interval": (0.3, 4.0)}),
        ("classes", {"steps": 4, "guidance_scale": 0.0, "guidance_interval": (0.3, 4.0)}),
    ],
)
def test_the_script_of_our_own_sampler_draws_the_same(
    networks: Path, tmp_path: Path, network: str, asked: dict[str, Any]
) -> None:
    spec, loaded = SamplerSpec(**asked), loaded_of(networks / network)
    noise = ImageNoise(SEED, range(N), (1, 8, 8))
    inside = inside_of(spec.guidance_interval, OWN) if spec.guidance_interval else None
    with torch.inference_mode():
        model = conditioned(loaded, range(N), spec.guidance_scale, inside=inside)
        *_, last = sample(model, loaded.schedule, spec, noise.x_T(), noise)
    steps = plan(loaded.schedule, spec)
    large = spec.variance == "sigma_hat"
    kind = "WideTimeUNet2DModel" if network == "wide" else "UNet2DModel"
    script = native_script(
        SHARED,
        replace(BARE, network_class=kind, n_classes=loaded.n_classes or 0,
                null_label=loaded.null_label or 0, guidance=spec.guidance_scale,
                guided=tuple(inside(step.t) for step in steps) if inside else ()),
        NativeSteps(spec.prediction_type, spec.eta, large, float(spec.clip), large,
                    [step.t for step in steps], [step.alpha_bar_t for step in steps]),
    )  # fmt: skip
    assert_equal(drawn_by(script, networks / network, tmp_path), to_uint8(last.x))


@pytest.mark.parametrize(
    "text", ["heun", "dpmpp_2m_sde/karras", "euler?sigmas=[10.0,2.0,0.5]", "ddim"]
)
def test_the_script_of_a_scheduler_draws_the_same(
    networks: Path, tmp_path: Path, text: str
) -> None:
    name, loaded = parse_sampler(text), loaded_of(networks / "classes")
    scheduler, eta = scheduler_for(name, OWN), 0.5 if text == "ddim" else 0.0
    kind, inside = type(scheduler).__name__, inside_of((0.0, 20.0), OWN)
    asked = set_steps(scheduler, name, 3).timesteps
    with torch.inference_mode():
        model = conditioned(loaded, range(N), 2.0, inside=inside)
        x_T = ImageNoise(SEED, range(N), (1, 8, 8)).x_T()
        drawn = draw(model, scheduler, x_T, image_streams(SEED, range(N)), eta)
    script = scheduler_script(
        SHARED, replace(BARE, n_classes=3, null_label=3, guidance=2.0,
                        guided=tuple(map(inside, asked))),
        SchedulerSteps(kind, set_steps_of(name, kind, 3), eta),
    )  # fmt: skip
    scheduler_for(name, OWN).save_pretrained(tmp_path)
    assert_equal(drawn_by(script, networks / "classes", tmp_path), to_uint8(drawn.x))


@pytest.mark.parametrize(
    ("family", "text", "eta", "interval"),
    [("dit", "ddim", 1.0, (1.0, 10.0)), ("flux", "flow_euler?sigmas=[1.0,0.7]", 0.0, None),
     ("sana", "unipc", 0.0, None), ("sdxl", "euler_a", 0.0, (0.0, 4.0)),
     ("sd3", "unipc?sigmas=[0.9,0.6,0.2]", 0.0, None), ("sd3", "flow_heun", 0.0, (0.5, 0.9))],
)  # fmt: skip
def test_the_script_of_a_pipeline_draws_the_same(
    tmp_path: Path, family: str, text: str, eta: float, interval: tuple[float, float] | None
) -> None:
    opened, tiny = opened_of(family, tmp_path), PIPELINES[family]
    name = parse_sampler(text)
    setting = Setting(name, name.n_listed or 3, tiny.guidance, eta, SEED, interval)
    conditions = tiny.conditions(range(N))
    with torch.inference_mode():
        wanted = draw_pipeline(opened, setting, range(N), conditions, 2).images
    scheduler = scheduler_for(setting.sampler, opened.scheduler)
    call = call_arguments(
        opened.takes, conditions, [], setting.steps, tiny.guidance, eta, opened.size, None
    )
    ours = {"generator", "batch_size", *conditions}
    guided, asked_for = (), None
    if interval is not None:
        visited = where_it_asks(opened, setting).timesteps
        guided = tuple(map(inside_of(interval, opened.scheduler), visited))
        assert any(guided)
        assert not all(guided)
        halves = halves_of(opened, interval)
        asked_for = Asked(halves.doubled, halves.prompts_last, networks_of(opened.pipeline))
    script = pipeline_script(
        replace(SHARED, shape=opened.shape),
        PipelineCall(
            opened.name,
            [name for name, part in opened.pipeline.components.items() if part is None],
            type(scheduler).__name__,
            listed_steps(setting.sampler, type(scheduler).__name__),
            eta,
            {name: value for name, value in call.items() if name not in ours},
            list(opened.takes.listed),
            opened.takes.latents,
            "batch_size" in opened.takes.parameters,
            str(opened.latent_dtype).removeprefix("torch."),
            [],
            guided,
        ),
        asked_for,
    )
    scheduler.save_pretrained(tmp_path)
    save_file(conditions, tmp_path / "conditions.safetensors")
    assert_equal(drawn_by(script, tmp_path / family, tmp_path), wanted)
