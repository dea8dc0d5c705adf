"""EDM's and EDM2's snapshots answer, and are drawn, as by NVlabs' own code."""

from __future__ import annotations

import copy
import dataclasses
import math
import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, EDMEulerScheduler
from torch import Tensor

from ddim_core.checkpoints.checkpoint import Checkpoint, load_checkpoint, scheduler_config
from ddim_core.checkpoints.conditioning import as_guide, conditioned
from ddim_core.checkpoints.convert import adopt, source_files
from ddim_core.networks.denoisers import UNetModel
from ddim_core.samplers.loop import draw
from ddim_core.samplers.name import parse_sampler
from ddim_core.samplers.scheduler import scheduler_for, set_steps
from tests.core.analytic import one_thread  # noqa: F401
from tests.core.edm_files import GOLDEN, Persistent, Recorded, dumped, recorded

CASES = recorded()
SIGMAS, STEPS = (0.003, 0.3, 5.0, 79.0), 5
OWN = parse_sampler("own")
CHURN = "S_churn=4&S_noise=1.003"
FLOAT32 = 5e-6  # rounding of D through some twenty layers, of its largest value; measured 1.0e-6
TRAJECTORY = 2e-5  # of the largest value of an image, over nine evaluations; measured 5.7e-6


def opened(case: Recorded, place: Path, decoder: Path | None = None, **snapshot: Any) -> Checkpoint:
    place.mkdir(exist_ok=True)
    file, out = place / "network-snapshot-0001234-0.050.pkl", place / "out"
    file.write_bytes(dumped({"ema": case.net(), "loss_fn": None, **snapshot}))
    out.mkdir()
    adopt(source_files(file, decoder), out)
    return load_checkpoint(out)


def labelled(checkpoint: Checkpoint, n: int) -> Any:
    of_class = torch.arange(n) % checkpoint.n_classes if checkpoint.n_classes else None
    return lambda x, t: checkpoint.model(x, t, of_class)


def denoised(model: Any, x: Tensor, sigma: Tensor, data: float = 0.5) -> Tensor:
    """D from F as diffusers' EDM schedulers have it."""
    total = sigma**2 + data**2
    said = model(x / total.sqrt(), (sigma.log() / 4.0).expand(len(x)))
    return data**2 / total * x + sigma * data / total.sqrt() * said


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_snapshot_answers_and_is_drawn_as_by_its_own_code(case: Recorded, tmp_path: Path) -> None:
    checkpoint = opened(case, tmp_path)
    assert (checkpoint.training_step, checkpoint.schedule) == (1234, None)
    assert "kimg" in " ".join(checkpoint.assumed)
    own = scheduler_config(tmp_path / "out")
    x = torch.from_numpy(case.arrays["x"])
    model = labelled(checkpoint, len(x))
    for level, expected in zip(SIGMAS, case.arrays["answers"], strict=True):
        sigma = torch.tensor(level)
        if "u" in case.arrays:
            levels = torch.from_numpy(case.arrays["u"])
            sigma = levels[(levels - sigma).abs().argmin()]
        got = denoised(model, x * (1 + sigma**2).sqrt(), sigma).numpy()
        np.testing.assert_allclose(got, expected, rtol=0, atol=FLOAT32 * np.abs(expected).max())
    ends = "" if case.meta["inner"] == "UNet" else "&S_min=0.05&S_max=50"
    for sampler, kept in (("own", "heun"), (f"edm_heun?{CHURN}{ends}", "churn")):
        name = parse_sampler(sampler)
        scheduler = scheduler_for(name, own)
        set_steps(scheduler, name, STEPS)
        streams = [torch.Generator().manual_seed(i) for i in range(len(x))]
        with torch.inference_mode():
            drawn = draw(model, scheduler, x, streams)
        expected = case.arrays[kept]
        bound = TRAJECTORY * np.abs(expected).max()
        np.testing.assert_allclose(drawn.x.numpy(), expected, rtol=0, atol=bound)
        assert drawn.n_evaluations == 2 * STEPS - 1 == len(scheduler.timesteps)


@pytest.mark.parametrize("kept", ["autog", "uncond"])
def test_a_snapshot_is_guided_by_another_as_by_edm2s_own_code(kept: str, tmp_path: Path) -> None:
    """The one with classes, led away from one of other weights, or from one without classes."""
    case = CASES["Precond classes"]
    other = dataclasses.replace(case, meta={**case.meta, "seed": 7})
    led = opened(case, tmp_path / "led")
    guide = opened(other if kept == "autog" else CASES["Precond other"], tmp_path / "guide")
    scheduler = scheduler_for(OWN, scheduler_config(tmp_path / "led" / "out"))
    set_steps(scheduler, OWN, STEPS)
    model = conditioned(led, range(2), 1.7, guide=as_guide(guide, led, range(2)))
    with torch.inference_mode():
        drawn = draw(model, scheduler, torch.from_numpy(case.arrays["x"])).x
    expected = case.arrays[kept]
    bound = TRAJECTORY * np.abs(expected).max()
    np.testing.assert_allclose(drawn.numpy(), expected, rtol=0, atol=bound)


def test_a_guide_knows_the_same_classes_or_none(tmp_path: Path) -> None:
    some, none = (CASES[name] for name in ("EDMPrecond adm", "VPPrecond skip"))
    led, guide = opened(none, tmp_path / "led"), opened(some, tmp_path / "guide")
    x, t = torch.from_numpy(some.arrays["x"]), torch.full((2,), 0.1)
    asked = as_guide(guide, led, range(2))  # whose training dropped labels
    assert torch.equal(asked(x, t), guide.model(x, t, torch.tensor([3, 3])))
    with pytest.raises(ValueError, match="guide knows 3 classes and the checkpoint no classes"):
        as_guide(dataclasses.replace(guide, null_label=None), led, range(2))
    with pytest.raises(ValueError, match="guide knows 3 classes and the checkpoint 5 classes"):
        as_guide(guide, dataclasses.replace(led, n_classes=5), range(2))


@pytest.mark.parametrize("name", ["EDMPrecond adm", "EDMPrecond ddpmpp", "Precond classes"])
def test_no_class_is_a_label_where_training_dropped_labels(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    checkpoint = opened(case, tmp_path)
    drops = bool(case.meta["made_with"].get("label_dropout"))
    assert (checkpoint.n_classes, checkpoint.null_label) == (3, 3 if drops else None)
    if drops:
        x, none = torch.from_numpy(case.arrays["x"]), torch.full((2,), 3)
        got = denoised(lambda x, t: checkpoint.model(x, t, none), x, torch.tensor(1.0))
        np.testing.assert_allclose(got.numpy(), case.arrays["no_class"], rtol=0, atol=1e-5)
        unsaid = denoised(checkpoint.model, x, torch.tensor(1.0))
        np.testing.assert_array_equal(unsaid.numpy(), got.numpy())


@pytest.mark.parametrize("name", ["EDMPrecond adm", "EDMPrecond ddpmpp", "Precond classes"])
def test_without_classes_a_network_is_told_zeros_as_by_its_own_code(
    name: str, tmp_path: Path
) -> None:
    """EDMPrecond.forward: class_labels=None is torch.zeros([1, label_dim])."""
    network: Any = opened(CASES[name], tmp_path).model.unet
    x, t = torch.from_numpy(CASES[name].arrays["x"]), torch.full((2,), 0.1)
    told = network.model(x, t, torch.zeros(2, 3))
    assert torch.equal(network(x, t)[0], told)
    assert not torch.equal(network(x, t, torch.tensor([1, 1]))[0], told)


@pytest.mark.parametrize("name", [name for name in CASES if name[:2] in ("VP", "VE", "iD")])
def test_another_preconditioning_is_told_as_edms_to_float64_rounding(
    name: str, tmp_path: Path
) -> None:
    """D = x + c_out F'(c_in x, c_noise) by table 1 of Karras et al. 2022, written out here."""
    network: Any = opened(CASES[name], tmp_path).model.unet.double()
    x = torch.from_numpy(CASES[name].arrays["x"]).double()
    for sigma in (torch.tensor(level, dtype=torch.float64) for level in SIGMAS):
        if name.startswith("VE"):
            sign, inside, told = 1.0, x, (sigma / 2.0).log()
        elif name.startswith("VP"):
            log = torch.log(1.0 + sigma**2)
            told = 999.0 * (torch.sqrt(0.1**2 + 2.0 * 19.9 * log) - 0.1) / 19.9
            sign, inside = -1.0, x / torch.sqrt(1.0 + sigma**2)
        else:
            told = (59 - (network.u - sigma).abs().argmin()).double()
            sign, inside = -1.0, x / torch.sqrt(1.0 + sigma**2)
        expected = (
            x + sign * sigma * network.model(inside, told.expand(2), torch.zeros(2, 0))[:, :2]
        )
        got = denoised(lambda x, t: network(x, t)[0], x, sigma)
        # exp(log) of sigma rounds, and VP's sinusoids see it at up to 1000
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-11 * float(expected.abs().max()))


def test_diffusers_own_schedulers_take_the_same_steps(tmp_path: Path) -> None:
    """`edm_euler` from the converted folder is EDM's sampler without its correction."""
    case = CASES["VPPrecond skip"]
    checkpoint, own = opened(case, tmp_path), scheduler_config(tmp_path / "out")
    x = torch.from_numpy(case.arrays["x"])
    scheduler = scheduler_for(name := parse_sampler("edm_euler"), own)
    assert type(scheduler) is EDMEulerScheduler
    set_steps(scheduler, name, STEPS)
    got = draw(checkpoint.model, scheduler, x).x
    expected = x * math.hypot(1.0, 80.0)  # diffusers starts from noise of this std
    for here, there in pairwise(scheduler.sigmas):
        slope = (expected - denoised(checkpoint.model, expected, here)) / here
        expected = expected + (there - here) * slope
    torch.testing.assert_close(got, expected, rtol=0, atol=2e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["EDMPrecond adm", "iDDPMPrecond adm", "Precond classes"])
def test_an_answer_is_the_same_at_every_place_of_a_batch(name: str, tmp_path: Path) -> None:
    checkpoint = opened(CASES[name], tmp_path)
    x = torch.from_numpy(CASES[name].arrays["x"])[:1].repeat(130, 1, 1, 1)
    x[1:129] = torch.randn(x[1:129].shape, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(130, dtype=torch.int64) if checkpoint.n_classes else None
    said = checkpoint.model(x, torch.full((130,), 0.2), labels)
    assert torch.equal(said[0], said[129])


def encoder(**changes: Any) -> Persistent:
    arrays = np.load(GOLDEN)
    told = {"vae_name": "stabilityai/sd-vae-ft-mse", "batch_size": 8, "_vae": None}
    told |= {"scale": arrays["encoder/scale"], "bias": arrays["encoder/bias"]}
    return Persistent("StabilityVAEEncoder", {**told, **changes})


def small_vae() -> AutoencoderKL:
    torch.manual_seed(1)
    return AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=2, norm_num_groups=4,
        layers_per_block=1,
    )  # fmt: skip


@pytest.mark.parametrize("place", ["vae", "elsewhere", "of/vae"])
def test_edm2s_latents_are_decoded_by_the_vae_beside_them_or_given(
    place: str, tmp_path: Path
) -> None:
    """Final latents = raw scale + bias, and the autoencoder's pictures are in [0, 1] there."""
    scale, bias = np.float32([0.12, 0.11]), np.float32([-0.7, 0.33])
    vae, case = small_vae(), CASES["Precond classes"]
    vae.save_pretrained(tmp_path / place)
    given = {"elsewhere": tmp_path / place, "of/vae": tmp_path / "of"}.get(place)
    checkpoint = opened(case, tmp_path, given, encoder=encoder(scale=scale, bias=bias))
    assert (checkpoint.resolution, checkpoint.channels) == (16, 3)
    z = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    channel = [torch.from_numpy(v)[None, :, None, None] for v in (scale, bias)]
    with torch.no_grad():
        expected = 2.0 * vae.decode((z - channel[1]) / channel[0]).sample - 1.0
    torch.testing.assert_close(checkpoint.images(z), expected, rtol=0, atol=1e-5)


def test_edm2s_latents_without_their_vae_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"of stabilityai/sd-vae-ft-mse, which is not there"):
        opened(CASES["Precond classes"], tmp_path, encoder=encoder())
    small_vae().save_pretrained(tmp_path / "vae")
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(ValueError, match=r"vae takes 2 channels .* takes 4"):
        opened(CASES["Precond classes"], tmp_path, encoder=encoder())


def changed(case: Recorded, has: dict[str, Any] | None = None, **meta: Any) -> Recorded:
    told = {**case.meta, **meta, "has": {**case.meta["has"], **(has or {})}}
    return dataclasses.replace(case, meta=told)


@pytest.mark.parametrize(
    ("has", "meta", "told"),
    [
        ({}, {"class_name": "MyPrecond"}, r"of MyPrecond around SongUNet; known are EDMPrecond"),
        ({}, {"inner": "MyUNet"}, r"EDMPrecond around MyUNet; known"),
        ({}, {"made_with": {"window": 3}}, r"made with 'window', which it has not in NVlabs' code"),
        ({"img_resolution": -8}, {}, r"img_resolution is -8 .* at least 1"),
        ({"img_resolution": 2**40}, {}, r"sample_size is 1099511627776"),
        ({"img_resolution": 7}, {}, r"do not halve 7 pixels evenly"),
        ({"label_dim": True}, {}, r"label_dim is True"),
        ({"sigma_data": math.nan}, {}, r"sigma_data is nan"),
        ({"sigma_min": 90, "sigma_max": 2}, {}, r"from 90 to 2; they must be numbers that rise"),
        ({"sigma_min": 0, "sigma_max": 0.001}, {}, r"from 0 to 0.001; .* above sigma_data \(0.5\)"),
        ({"sigma_min": 0, "sigma_max": 0.4}, {}, r"from 0 to 0.4; .* above sigma_data"),
        ({"sigma_min": 85, "sigma_max": 100}, {}, r"from 85 to 100; .* reach into 0.002 to 80"),
        ({"sigma_max": math.nan}, {}, r"to nan; they must be numbers"),
        ({}, {"made_with": {"channel_mult": None}}, r"channel_mult is None in .* list of whole"),
        ({}, {"made_with": {"channel_mult": "ab"}}, r"channel_mult is 'ab' .* list of whole"),
        ({}, {"made_with": {"num_blocks": 2.5}}, r"num_blocks is 2.5 .* a whole number"),
        ({}, {"made_with": {"attn_resolutions": ["a"]}}, r"attn_resolutions is \['a'\] "),
        ({}, {"made_with": {"resample_filter": 5}}, r"resample_filter is 5 .* list"),
        ({}, {"made_with": {"channel_mult_noise": None}}, r"channel_mult_noise is None"),
        ({}, {"made_with": {"num_blocks": 10**5}}, r"2 levels? of 100000 blocks|at most"),
        ({}, {"made_with": {"channel_mult": [1] * 10**4}}, r"10000 entries"),
        ({}, {"made_with": {"model_channels": 16}},
         r"has shape .* its configuration .*looks like NVlabs' SongUNet with \d blocks of \d+"),
        ({}, {"made_with": {"encoder_type": "skip"}}, r"lacks .* weights .*like NVlabs' Song"),
        ({}, {"made_with": {"embedding_type": "learned"}}, r"must be one of positional, fourier"),
    ],
)  # fmt: skip
def test_what_is_no_network_of_nvlabs_is_refused_in_words(
    has: dict[str, Any], meta: dict[str, Any], told: str, tmp_path: Path
) -> None:
    case = CASES["EDMPrecond ddpmpp"]
    if "made_with" in meta:
        meta = {"made_with": {**case.meta["made_with"], **meta["made_with"]}}
    with pytest.raises(ValueError, match=told):
        opened(changed(case, has, **meta), tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "may"),
    [
        ("label_balance", "x", "a number from 0 to 1"),
        ("concat_balance", math.nan, "a number from 0 to 1"),
        ("res_balance", 1e300, "a number from 0 to 1"),
        ("attn_balance", [1], "a number from 0 to 1"),
        ("clip_act", "x", "None or a number above 0"),
        ("clip_act", 0, "None or a number above 0"),
        ("channels_per_head", -64, "a whole number of at least 1"),
        ("channel_mult_emb", 0, "a whole number of at least 1"),
    ],
)
def test_edm2s_arguments_are_held_against_what_they_may_be(
    name: str, value: Any, may: str, tmp_path: Path
) -> None:
    case = CASES["Precond classes"]
    made_with = {**case.meta["made_with"], name: value}
    with pytest.raises(ValueError, match=re.escape(f"{name} is {value!r} in the snapshot; ")) as no:
        opened(changed(case, made_with=made_with), tmp_path)
    assert str(no.value).endswith(f"it must be {may}")


@pytest.mark.parametrize("name", ["EDMPrecond ddpmpp", "Precond classes"])
@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod.", "ema_model."])
def test_weights_without_how_they_were_made_are_refused_in_words(
    name: str, prefix: str, tmp_path: Path
) -> None:
    state = {f"{prefix}{key}": weight for key, weight in CASES[name].state.items()}
    torch.save({"state_dict": state}, tmp_path / "net.pt")
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match=r"nothing says how it was made; give the snapshot"):
        adopt(source_files(tmp_path / "net.pt"), tmp_path / "out")


@pytest.mark.parametrize("name", ["VEPrecond ncsnpp", "iDDPMPrecond adm", "Precond classes"])
def test_a_network_in_half_the_bits_is_told_the_same_noise(name: str, tmp_path: Path) -> None:
    """As on a card: channels last, in bfloat16, whose numbers have eight bits."""
    checkpoint = opened(CASES[name], tmp_path)
    whole, half = checkpoint.model, UNetModel(copy.deepcopy(checkpoint.model.unet), on_card=True)
    half.unet.to(dtype=torch.bfloat16)
    told = {n: b for n, b in whole.unet.named_buffers() if not n.endswith("resample_filter")}
    assert all(torch.equal(half.unet.get_buffer(n), b) for n, b in told.items())
    assert told
    x, t = torch.from_numpy(CASES[name].arrays["x"]), torch.full((2,), -0.4)
    labels = torch.tensor([0, 2]) if checkpoint.n_classes else None
    expected = whole(x, t, labels)
    # Some twenty layers, each of which rounds to one in 256; measured 0.02.
    assert float((half(x, t, labels) - expected).abs().max() / expected.abs().max()) < 0.08
