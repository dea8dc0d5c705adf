"""Research codes' checkpoints: each answers, and draws, as its own code (tests/golden/networks.npz,
of tests/peers/record_networks.py), and what is no such file is refused in words."""

from __future__ import annotations

import functools
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from diffusers.schedulers import scheduling_ddpm

from ddim_core.checkpoints.checkpoint import Checkpoint, load_checkpoint, scheduler_config
from ddim_core.checkpoints.conditioning import for_one_run
from ddim_core.checkpoints.convert import adopt, source_files
from ddim_core.checkpoints.formats.adm import adm_network
from ddim_core.checkpoints.formats.adm_flags import CONSISTENCY, PUBLISHED, Flags, Shape, flags_of
from ddim_core.checkpoints.formats.lucidrains import lucidrains_network
from ddim_core.diffusion.sampling import sample
from ddim_core.diffusion.specs import SamplerSpec, Weights
from ddim_core.samplers.loop import draw
from ddim_core.samplers.name import parse_sampler
from ddim_core.samplers.scheduler import scheduler_for, set_steps
from tests.core.foreign_files import small_unet
from tests.peers.network_facts import drawn, noises, streams

ARRAYS = np.load(Path(__file__).parents[2] / "golden" / "networks.npz")
META: dict[str, Any] = json.loads(ARRAYS["meta"].tobytes())
SEEDS = {"adm": 0, "adm_ddpm": 1, "improved": 2}  # lucidrains' 3, score_sde's 4
# Parts of the largest value. Rounding through some twenty layers; measured up to 1.4e-6.
FLOAT32 = 5e-6
TRAJECTORY = 2e-5  # the same over 10 to 65 steps; measured up to 3.1e-6


def kept(name: str, key: str) -> torch.Tensor:
    return torch.from_numpy(ARRAYS[f"{name}/{key}"])


def state_of(name: str) -> dict[str, torch.Tensor]:
    """The state dict that the peer had: its weights, and its buffers."""
    seed = SEEDS.get(name, 3 if name.startswith("lucidrains") else 4)
    state = drawn(META[name]["shapes"], seed)
    start = f"{name}/buffer/"
    state |= {k.removeprefix(start): torch.from_numpy(ARRAYS[k]) for k in ARRAYS if start in k}
    return state


def content_of(name: str) -> Any:
    """What the peer saves: guided-diffusion the state dict, the others a dict of more."""
    state = state_of(name)
    if name.startswith("lucidrains"):
        # ema_pytorch keeps both models; the online one must not be taken for the average.
        ema: dict[str, Any] = {"initted": torch.tensor(True), "step": torch.tensor(9)}
        for key in META[name]["ema"]:
            model, _, inner = key.partition(".")
            if inner:
                ema[key] = state[inner] if model == "ema_model" else -state[inner]
        raw = {key: value if "model." not in key else value + 1 for key, value in state.items()}
        scaler = None
        return {"step": 700, "model": raw, "opt": {"state": {}, "param_groups": []}, "ema": ema,
                "scaler": scaler, "version": "2.2.6"}  # fmt: skip
    if name.startswith("score_sde"):
        shadow = [state[key] for key in META[name]["shapes"]]  # in the order of its parameters
        raw = {"module.sigmas": kept(name, "sigmas")}
        raw |= {key: state[key] + 1 for key in META[name]["shapes"]}
        ema = {"decay": 0.999, "num_updates": 700, "shadow_params": shadow}
        return {"optimizer": {"state": {}}, "model": raw, "ema": ema, "step": 700}
    return state


def written(folder: Path, name: str, content: Any = None, settings: Any = None) -> Path:
    folder.mkdir()
    file = {"lucidrains": "model-7.pt", "score_sde": "checkpoint_10.pth"}
    start = next((start for start in file if name.startswith(start)), "")
    path = folder / file.get(start, "ema_0.9999_000700.pt")
    torch.save(content_of(name) if content is None else content, path)
    settings = META[name]["settings"] if settings is None else settings
    if settings:
        (folder / "config.yml").write_text(yaml.safe_dump(settings))
    return path


def adopted(path: Path, weights: Weights = "ema") -> Path:
    out = path.parent / f"out-{weights}"
    out.mkdir()
    adopt(source_files(path), out, weights)
    return out


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @functools.cache
    def open_it(name: str) -> tuple[Checkpoint, Path]:
        out = adopted(written(tmp_path_factory.mktemp("research") / "run", name))
        return load_checkpoint(out), out

    return open_it


def off(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("name", META)
def test_a_network_answers_as_its_own_code(name: str, opened: Any) -> None:
    got, _ = opened(name)
    labels = [kept(name, "y")] if f"{name}/y" in ARRAYS else []
    said = got.model.whole(kept(name, "x"), kept(name, "t"), *labels)
    assert off(said, kept(name, "said")) < FLOAT32
    assert (got.resolution, got.training_step) == (8, 700)
    mean = got.model(kept(name, "x"), kept(name, "t"), *labels)
    assert torch.equal(mean, said[:, :3])
    if f"{name}/std" in ARRAYS:
        own = np.sqrt(1 - got.schedule.alpha_bar[kept(name, "t").numpy()])
        np.testing.assert_allclose(own, kept(name, "std").numpy(), rtol=2e-4)  # float32 near 0
    said_of = {"adm": "rescale_timesteps False", "improved": "rescale_timesteps True"}
    assert (said_of[name] in got.assumed[0]) if name in said_of else got.assumed == ()


SAMPLERS = {
    "adm": SamplerSpec(10, clip=True, rederive_eps=True),
    "improved": SamplerSpec(20, clip=True, rederive_eps=True),
    "lucidrains": SamplerSpec(10, spacing="trailing", clip=True, rederive_eps=True,
                              prediction_type="v_prediction"),
    "lucidrains_x0": SamplerSpec(10, spacing="trailing", clip=True, rederive_eps=True,
                                 prediction_type="sample"),
    "lucidrains_noise": SamplerSpec(10, spacing="trailing", clip=True, rederive_eps=True),
    "score_sde_ddpm.cifar10": SamplerSpec(65, variance="sigma_hat"),
    "score_sde_cifar10_ddpmpp": SamplerSpec(65, variance="sigma_hat"),
}  # fmt: skip


@pytest.mark.parametrize("name", SAMPLERS)
def test_our_steps_end_where_its_own_sampler_does(name: str, opened: Any) -> None:
    got, _ = opened(name)
    spec, x_T = SAMPLERS[name], kept(name, "x")[:2]
    assert got.prediction_type == spec.prediction_type
    model = for_one_run(got, got.schedule, spec.prediction_type)  # its last guess, for x0's
    if name == "adm":
        model = functools.partial(got.model, labels=kept(name, "y")[:2])
    noise = noises(spec.steps, x_T.shape)
    with torch.inference_mode():
        *_, last = sample(model, got.schedule, spec, x_T, lambda i: noise[i])
    assert off(last.x, kept(name, "end")) < TRAJECTORY


@pytest.mark.parametrize("sampler", ["own", "ddpm"])
@pytest.mark.parametrize("name", ["score_sde_ddpm.cifar10", "score_sde_cifar10_ddpmpp"])
def test_score_sdes_own_scheduler_ends_where_its_sampler_does(
    name: str, sampler: str, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its predictors clip nothing; the recorded end is drawn with noise of numpy's stream."""
    got, folder = opened(name)
    chosen = parse_sampler(sampler)
    scheduler = scheduler_for(chosen, scheduler_config(folder))
    set_steps(scheduler, chosen, 65)
    x_T = kept(name, "x")[:2]
    each = iter(noises(65, x_T.shape))
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *_, **__: next(each))
    with torch.inference_mode():
        made = draw(got.model, scheduler, x_T, streams())
    assert off(made.x, kept(name, "end")) < TRAJECTORY


VE: dict[str, Any] = json.loads(ARRAYS["ve/meta"].tobytes())


def exploding(folder: Path, settings: Any, **extra: torch.Tensor) -> Path:
    """A VE model as score_sde saves it; its list of averages leaves the frequencies out, which are
    not trained."""
    state = drawn(VE["shapes"], 4) | extra
    shadow = [weight for name, weight in state.items() if name != "module.all_modules.0.W"]
    content = {"optimizer": {"state": {}}, "model": state,
               "ema": {"decay": 0.999, "shadow_params": shadow}, "step": 700}  # fmt: skip
    return written(folder, "score_sde_ve", content, settings)


@pytest.mark.parametrize("settings", [VE["settings"], {"sampling": {"n": 1}}])
def test_score_sdes_exploding_network_is_an_edm_of_the_same_denoised_images(
    settings: Any, tmp_path: Path
) -> None:
    """D of pixels in [0, 1] at half the noise is that of [-1, 1]."""
    out = adopted(exploding(tmp_path / "run", settings))
    got, own = load_checkpoint(out), scheduler_config(out)
    assert (own["_class_name"], own["sigma_min"], own["sigma_max"]) == ("EDMHeunScheduler", 0.02, 100.0)  # fmt: skip # noqa: E501
    assert bool(got.assumed) == ("model" not in settings)
    x, sigma = 2 * kept("ve", "noisy") - 1, 2 * kept("ve", "std")[:, None, None, None]
    total = sigma**2 + 0.25
    said = got.model(x / total.sqrt(), sigma.flatten().log() / 4)
    denoised = 0.25 / total * x + sigma * 0.5 / total.sqrt() * said
    assert off((denoised + 1) / 2, kept("ve", "denoised")) < FLOAT32


@pytest.mark.parametrize(
    ("section", "changed", "told"),
    [
        ("training", {"continuous": False}, "continuous is False beside a network that is told"),
        ("data", {"centered": True}, "centered is True"),
        ("model", {"progressive": "output_skip"}, "without an output pyramid"),
        ("training", {"sde": "vpsde"}, "sde is 'vpsde'"),
        ("model", {"sigma_max": 0.1}, "sigma_min is 0.01 and sigma_max 0.1"),
        ("model", {"sigma_min": "x"}, "sigma_min is 'x'"),
    ],
)
def test_other_exploding_networks_are_refused(
    section: str, changed: dict[str, Any], told: str, tmp_path: Path
) -> None:
    settings = {**VE["settings"], section: {**VE["settings"][section], **changed}}
    with pytest.raises(ValueError, match=told):
        adopted(exploding(tmp_path / "run", settings))


@pytest.mark.parametrize("wrong", [torch.full((32,), torch.inf), torch.ones(3), torch.ones(32, 1)])
def test_frequencies_that_are_none_are_refused(wrong: torch.Tensor, tmp_path: Path) -> None:
    path = exploding(tmp_path / "run", VE["settings"], **{"module.all_modules.0.W": wrong})
    with pytest.raises(ValueError, match=r"must be 32 finite numbers|all_modules\.0\.W"):
        adopted(path)


@pytest.mark.parametrize("n_steps", [1, 2, 7, 23, 50])
def test_guided_diffusions_fewer_steps_are_at_its_own_timesteps(n_steps: int, opened: Any) -> None:
    """`space_timesteps` of one number: round(i (T - 1) / (S - 1)), from 0 to T - 1."""
    _, folder = opened("adm_ddpm")
    scheduler = scheduler_for(parse_sampler("own"), scheduler_config(folder))
    set_steps(scheduler, parse_sampler("own"), n_steps)
    stride = 49 / (n_steps - 1) if n_steps > 1 else 1.0
    assert scheduler.timesteps.tolist() == [round(i * stride) for i in reversed(range(n_steps))]


def test_the_learned_range_is_ddpms_variance(opened: Any) -> None:
    got, folder = opened("adm_ddpm")
    own, name = scheduler_config(folder), parse_sampler("ddpm")
    assert own["variance_type"] == "learned_range"
    scheduler = scheduler_for(name, own)
    set_steps(scheduler, name, 50)
    x_T = kept("adm_ddpm", "x")[:2]
    with torch.inference_mode():
        made = draw(got.model.whole, scheduler, x_T, streams())
    assert off(made.x, kept("adm_ddpm", "end")) < TRAJECTORY
    with pytest.raises(ValueError, match="with variance_type learned_range needs"):
        draw(got.model, scheduler, x_T, streams())
    other = scheduler_for(parse_sampler("dpmpp_2m"), own)
    assert other.config.get("variance_type") is None  # it is given the noise alone


def test_twice_the_channels_are_halved_only_where_the_scheduler_says_why(tmp_path: Path) -> None:
    path = written(tmp_path / "run", "adm")
    (path.parent / "scheduler_config.json").write_text('{"beta_schedule": "linear"}')
    with pytest.raises(ValueError, match=r"twice its 3 channels and variance_type is None"):
        adopted(path)


@pytest.mark.parametrize("name", ["lucidrains", "score_sde_cifar10_ddpmpp"])
def test_the_weights_that_are_no_average_are_taken_where_asked(name: str, tmp_path: Path) -> None:
    got = load_checkpoint(adopted(written(tmp_path / "run", name), "raw"))
    mine = got.model.unet.state_dict()
    of_ours = "final_conv.weight" if name == "lucidrains" else "all_modules.2.weight"
    of_theirs = f"model.{of_ours}" if name == "lucidrains" else f"module.{of_ours}"
    assert got.weights == "raw"
    assert torch.equal(mine[of_ours], state_of(name)[of_theirs] + 1)


def other(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Other weights; what lies beside the network, without a dot in its name, is the same."""
    return {k: v + 1 if "." in k else v for k, v in state.items()}


WRAPPINGS = {
    "DDP": lambda s: {f"module.{k}": v for k, v in s.items()},
    "compiled DDP": lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
    "Lightning": lambda s: {"state_dict": {f"model.{k}": v for k, v in s.items()},
                            "global_step": 700, "pytorch-lightning_version": "2.5"},
    "Lightning, EMA": lambda s: {
        "state_dict": {f"net.{k}": v + 1 for k, v in s.items()}
        | {f"net_ema.module.{k}": v for k, v in s.items()}, "global_step": 700,
    },
    "EMA dict": lambda s: {"model": other(s), "ema": s},
    "torch-ema": lambda s: {
        "model": other(s),
        "ema": {"decay": 0.9, "num_updates": 3,
                "shadow_params": [v for k, v in s.items() if k.startswith("model.")]
                or list(s.values())},
    },
    "averaged model": lambda s: {"n_averaged": torch.tensor(3)}
    | {f"module.{k}": v for k, v in s.items()},
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "wrapping"),
    [*(("adm", wrapping) for wrapping in WRAPPINGS), ("lucidrains_noise", "Lightning, EMA"),
     ("lucidrains_noise", "torch-ema"), ("lucidrains_noise", "compiled DDP"),
     ("score_sde_ddpm.cifar10", "Lightning, EMA"), ("score_sde_ddpm.cifar10", "EMA dict")],
)  # fmt: skip
def test_wrappings_are_taken_off(name: str, wrapping: str, tmp_path: Path) -> None:
    state = state_of(name)
    state = {k.removeprefix("module."): v for k, v in state.items()}
    path = written(tmp_path / "run", name, WRAPPINGS[wrapping](state))
    weights = load_checkpoint(adopted(path)).model.unet.state_dict()
    last = {"adm": ("conv_out.bias", "out.2.bias"),
            "lucidrains_noise": ("final_conv.bias", "model.final_conv.bias")}  # fmt: skip
    ours, theirs = last.get(name, ("all_modules.2.bias",) * 2)
    assert torch.equal(weights[ours], state[theirs])


def test_flags_in_lightnings_file_count_and_those_beside_it_before_them(tmp_path: Path) -> None:
    flags = {**META["adm"]["settings"], "diffusion_steps": 50}
    content = {"state_dict": state_of("adm"), "hyper_parameters": {"flags": flags}}
    for beside, steps in (({}, 50), ({"diffusion_steps": 60}, 60)):
        path = written(tmp_path / f"run{steps}", "adm", content, beside)
        got = load_checkpoint(adopted(path))
        assert (got.resolution, got.schedule.n_train if got.schedule else 0) == (8, steps)


def test_weights_of_another_configuration_of_diffusers_say_which_they_look_like(
    tmp_path: Path,
) -> None:
    path = tmp_path / "model.safetensors"
    small = small_unet()
    small.save_pretrained(tmp_path / "bare")
    (tmp_path / "bare" / "diffusion_pytorch_model.safetensors").rename(path)
    config = json.loads(small.to_json_string())
    widths = [2 * width for width in config["block_out_channels"]]
    (tmp_path / "config.json").write_text(json.dumps(config | {"block_out_channels": widths}))
    looks = re.escape(
        f"looks like a UNet2DModel with block_out_channels {[w // 2 for w in widths]}"
    )
    with pytest.raises(ValueError, match=looks):
        adopted(path)


def test_accelerates_folder_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "run", "adm").rename(tmp_path / "run" / "pytorch_model.bin")
    torch.save({"state": {}}, path.parent / "optimizer.bin")
    (path.parent / "random_states_0.pkl").write_bytes(b"not read")
    out = tmp_path / "out"
    out.mkdir()
    adopt(source_files(path.parent), out)
    weights = load_checkpoint(out).model.unet.state_dict()
    assert torch.equal(weights["conv_out.bias"], state_of("adm")["out.2.bias"])


CLASSIFIER = ("time_embed.", "input_blocks.", "middle_block.", "out.")


def changed(name: str, how: str) -> Any:
    state = state_of(name)
    if how == "classifier":
        return {k: v for k, v in state.items() if k.startswith(CLASSIFIER)}
    if how == "upsampler":
        state["input_blocks.0.0.weight"] = state["input_blocks.0.0.weight"].repeat(1, 2, 1, 1)
    if how == "a weight less":
        del state["middle_block.0.in_layers.2.weight"]
    if how == "latent":
        state["input_blocks.1.1.transformer_blocks.0.norm1.weight"] = torch.ones(32)
    if how == "latents":
        return {f"model.diffusion_model.{k}": v for k, v in state.items()} | {
            "first_stage_model.decoder.conv_in.weight": torch.ones(1, 1, 3, 3)
        }
    if how == "a far block":
        far = {"adm": "output_blocks.999999999.0.out_layers.3.bias",
               "lucidrains": "model.downs.999999999.0.block1.norm.g"}  # fmt: skip
        state[far.get(name, "module.all_modules.999999999.NIN_3.W")] = torch.ones(2)
    if how == "misnamed":
        return {k.replace("time_embed.0.", "time_embed.00."): v for k, v in state.items()}
    if how == "no schedule":
        return {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}
    if how == "older":
        return {k.replace(".norm.g", ".norm.weight"): v for k, v in state.items()}
    if how == "fourier":
        state["module.all_modules.0.W"] = torch.ones(16)
    return state


@pytest.mark.parametrize(
    ("name", "how", "settings", "message"),
    [
        ("adm", "classifier", None, "guided-diffusion's classifier"),
        ("adm", "upsampler", None, "upsamplers do, which are told of a smaller image"),
        ("adm", "latent", None, "a U-Net of latent diffusion"),
        ("adm", "latents", None, "is a single file of latent diffusion; as .safetensors"),
        ("adm", "misnamed", None, "nearest is guided-diffusion, whose networks have 'time_embed"),
        ("adm", "a far block", None, "weights name 1000000000 blocks"),
        ("lucidrains", "a far block", None, "weights name 1000000000 blocks"),
        ("score_sde_ddpm.cifar10", "a far block", None, "weights name 1000000000 blocks"),
        ("adm", "a weight less", None,
         r"lacks 1 weights .*looks like guided-diffusion with num_channels 32, channel_mult 1,2"),
        ("adm", "", {"image_size": 8, "num_channels": 256},
         r"looks like guided-diffusion with num_channels 32, .*beside it say num_channels 256"),
        ("adm", "", {"image_size": 8, "attention_resolutions": "8,4", "class_cond": False},
         r"say class_cond False, attention_resolutions 8,4 at 8 pixels"),
        ("adm", "", {"image_size": 7}, "image_size is 7, whose 2 levels halve it"),
        ("adm", "", {"image_size": True}, "image_size is True .* a whole number"),
        ("adm", "", {"image_size": 8, "num_heads": 7}, "num_heads is 7, by which"),
        ("adm", "", {"image_size": 8, "noise_schedule": "sqrt"}, "noise_schedule is 'sqrt'"),
        ("adm", "", {"image_size": 8, "diffusion_steps": 10**9}, "diffusion_steps is 1000000000"),
        ("adm", "", {}, "nothing says the image size .*looks like guided-diffusion"),
        ("lucidrains", "no schedule", None, r"without the schedule .*Trainer.save"),
        ("lucidrains", "older", None, "an older release"),
        ("lucidrains", "", {"image_size": 9}, "image_size is 9, whose 2 levels halve it"),
        ("score_sde_ddpm.cifar10", "fourier", None, "told the noise level by Fourier features"),
        ("score_sde_ddpm.cifar10", "", {"sde": "vesde", "image_size": 8}, "sde is 'vesde'"),
        ("score_sde_ddpm.cifar10", "", {"sde": "subvpsde", "image_size": 8}, "sde is 'subvpsde'"),
        ("score_sde_ddpm.cifar10", "", {"sde": "vpsde", "nf": 128, "image_size": 8},
         r"looks like score_sde's ddpm with nf 32, .*the settings beside it say nf 128"),
        ("score_sde_ddpm.cifar10", "", {"sde": "vpsde", "centered": False}, "centered is off"),
        ("score_sde_ddpm.cifar10", "", {"sde": "vpsde", "scale_by_sigma": True},
         "scale_by_sigma is on"),
        ("score_sde_ddpm.cifar10", "", {"sde": "vpsde", "image_size": 8, "attn_resolutions": [8]},
         r"attend at \[8\] pixels, its weights at \[4\]"),
        ("score_sde_cifar10_ddpmpp", "", {"sde": "vpsde", "fir": True, "fir_kernel": [1, 1]},
         r"fir_kernel is \[1, 1\]; it must be \[1, 3, 3, 1\]"),
        ("score_sde_ddpm.cifar10", "", {"sde": "vpsde", "num_scales": -1}, "num_scales is -1"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_what_it_looks_like(
    name: str, how: str, settings: Any, message: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "run", name, changed(name, how), settings)
    with pytest.raises(ValueError, match=message):
        adopted(path)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, ("epsilon", "fixed_large")),
        ({"sigma_small": True}, ("epsilon", "fixed_small")),
        ({"predict_xstart": True}, ("sample", "fixed_large")),
    ],
)
def test_flags_say_what_a_network_predicts_and_its_fixed_variance(
    told: dict[str, Any], expected: tuple[str, str]
) -> None:
    """`create_gaussian_diffusion` of guided-diffusion, without `learn_sigma`."""
    state = state_of("adm")
    state |= {name: state[name][:3] for name in ("out.2.weight", "out.2.bias")}
    flags = {**META["adm"]["settings"], "learn_sigma": False, **told}
    found = adm_network(state, flags).scheduler or {}
    assert (found["prediction_type"], found["variance_type"]) == expected


def test_lucidrains_learned_variance_is_the_second_half_of_its_answer() -> None:
    """Its LearnedGaussianDiffusion's; Unet(learned_variance=True) has twice the channels out."""
    state = state_of("lucidrains_noise")
    last = ("model.final_conv.weight", "model.final_conv.bias")
    found = lucidrains_network(state | {n: state[n].repeat_interleave(2, 0) for n in last}, {})
    assert (found.config["in_channels"], found.config["out_channels"]) == (3, 6)
    assert (found.scheduler or {})["variance_type"] == "learned_range"


def test_published_shapes_tell_what_their_weights_do_not() -> None:
    for shape, (name, flags) in PUBLISHED.items():
        found, network, noise = flags_of(shape, {})
        assert found == flags
        assert name in network[0]
        assert name in noise[0]
    shape = Shape(128, (1, 2, 3, 4), 2, (2, 3), 0, False, True, True)
    found, network, noise = flags_of(shape, {})
    assert found == Flags(image_size=64)
    assert "4 heads in the legacy order" in network[0]
    assert "linear with T = 1000 is assumed" in noise[0]


def test_the_shape_of_consistency_models_is_refused_without_flags() -> None:
    for shape in CONSISTENCY:
        with pytest.raises(ValueError, match="OpenAI's consistency models"):
            flags_of(shape, {})
        assert flags_of(shape, {"image_size": 64})[0].image_size == 64


def test_assumptions_are_stated(tmp_path: Path) -> None:
    for name, said in (
        ("lucidrains", "does not say its image size: 128"),
        ("score_sde_ddpm.cifar10", "trained at whole timesteps"),
    ):
        out = adopted(written(tmp_path / name, name, settings={"image_size": None}))
        assert said in " ".join(load_checkpoint(out).assumed)


class Evil:
    def __reduce__(self) -> Any:
        return eval, ("__import__('pathlib').Path('ran').touch()",)


@pytest.mark.parametrize("name", ["adm", "lucidrains_noise", "score_sde_ddpm.cifar10"])
def test_nothing_that_lies_in_a_file_is_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content: Mapping[str, Any] = content_of(name)
    for key, value in (("optimizer", Evil()), ("step", Evil()), ("ema", [Evil()])):
        path = written(tmp_path / f"run-{key}", name, {**content, key: value})
        with pytest.raises(ValueError, match=r"asks for 'builtins\.eval'"):
            adopted(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["adm", "lucidrains_noise", "score_sde_ddpm.cifar10"])
def test_damaged_files_are_refused_in_words(name: str, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(content_of(name), buffer)
    data, draw_at = buffer.getvalue(), np.random.RandomState(0)
    path = written(tmp_path / "run", name)
    for trial in range(12):
        at = int(draw_at.randint(len(data)))
        harmed = data[:at] if trial % 2 else data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :]
        path.write_bytes(harmed)
        out = tmp_path / f"out{trial}"
        out.mkdir()
        with pytest.raises(ValueError, match=r"\w{3}"):
            adopt(source_files(path), out)
