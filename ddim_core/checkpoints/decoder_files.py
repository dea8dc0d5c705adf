"""The autoencoder that belongs to one file of weights: where it lies, and what its latents are.

A file of DiT or LightningDiT holds a network of latents and nothing that makes pixels of them. The
autoencoder lies beside it as `vae`, or somewhere else in the form of diffusers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError

from ddim_core.checkpoints.checkpoint import WEIGHTS_NAME
from ddim_core.checkpoints.formats.format import Network
from ddim_core.checkpoints.formats.latents import Latents
from ddim_core.checkpoints.formats.transformers import MARK, latent_stats
from ddim_core.checkpoints.pipeline_files import present
from ddim_core.checkpoints.weight_files import save_settings, save_state
from ddim_core.common.plain_files import is_there
from ddim_core.safe_files.claims.tensor_headers import tensors_in
from ddim_core.safe_files.safe_load import read_weights
from ddim_core.safe_files.settings import read_settings
from ddim_core.safe_files.weight_names import DECODER_FOLDERS, STATS

MOST_COLOURS = 3  # of pixels; what has more channels is latents
HOW = (
    "give, as --configuration, the folder of a pipeline with a vae in it or of an AutoencoderKL of "
    "diffusers (such as stabilityai/sd-vae-ft-ema), or lay it beside the file as vae"
)


def is_one_network(file: Path) -> bool:
    """Tells a file of one network, to which an autoencoder belongs, from others that a
    configuration is given for: single files of Stable Diffusion, which are safetensors."""
    if file.suffix != ".safetensors":
        return True
    try:
        with tensors_in(file) as weights:
            return any(name.endswith(MARK) for name in weights.keys())  # noqa: SIM118
    except (OSError, SafetensorError):  # whoever opens it says why
        return False


def decoder_files(folder: Path) -> dict[str, Path]:
    """Returns the files of the autoencoder in a folder, `vae/config.json` and so on; and those that
    say how its latents were normed. Empty where there are none."""
    found = {STATS: folder / STATS} if is_there(folder / STATS) else {}
    for part in DECODER_FOLDERS:
        found |= present(folder / part, part)
    return found


def required_decoder(folder: Path) -> dict[str, Path]:
    """Returns the files of an autoencoder that a folder has as `vae`, or is.

    Raises:
        ValueError: If there is none.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {str(folder)!r} with an autoencoder; {HOW}")
    found = decoder_files(folder)
    if not any(name.startswith(DECODER_FOLDERS) for name in found):
        config = folder / "config.json"
        kind = str(read_settings(config).get("_class_name")) if is_there(config) else ""
        if not kind.startswith(("Autoencoder", "VQModel")):
            raise ValueError(f"{folder.name} has no vae and is no autoencoder itself; {HOW}")
        found |= present(folder, "vqvae" if kind == "VQModel" else "vae")
    return found


def required_latents(files: Mapping[str, Path], network: Network) -> Latents | None:
    """Returns what the latents of one file's network are to their decoder, once that is there; None
    where they are only scaled, as its own configuration says, or it draws pixels.

    Args:
        files: Of the checkpoint.
        network: What its file holds.

    Raises:
        ValueError: If it draws latents and there is no autoencoder, or one of other latents; or
            these were normed and nothing says by what.
    """
    drawn, name = network.config["in_channels"], files["weights"].name
    place = next(
        (files[key] for p in DECODER_FOLDERS if (key := f"{p}/config.json") in files), None
    )
    latents = network.latents
    if place is None and (latents is not None or drawn > MOST_COLOURS):
        of = latents.decoder if latents is not None else "an autoencoder"
        raise ValueError(
            f"the network of {name} draws {drawn} channels of latents of {of}, which is not "
            f"there; {HOW}"
        )
    made = drawn if place is None else read_settings(place).get("latent_channels")
    if made != drawn:
        raise ValueError(
            f"the network of {name} draws {drawn} channels, and the autoencoder beside it has "
            f"latents of {made}; give the one that it was trained with"
        )
    multiplier = network.latent_multiplier
    if multiplier is None or place is None:
        return latents
    return _normed(files.get(STATS), multiplier, drawn)


def _normed(stats: Path | None, multiplier: float, drawn: int) -> Latents:
    """LightningDiT's latents: z = multiplier (raw - mean) / std."""
    if stats is None:
        raise ValueError(
            f"the network draws latents that were normed channel by channel, and there is no "
            f"{STATS} beside it or its autoencoder; LightningDiT's extract_features writes it (a "
            'network whose were not: {"latent_norm": false} in a config.json beside it)'
        )
    mean, std = latent_stats(read_weights(stats), drawn, stats.name)
    return Latents("LightningDiT's autoencoder", tuple(s / multiplier for s in std), tuple(mean))


def fold_decoder(latents: Latents, folder: Path) -> None:
    """Makes a converted decoder that of these latents; see `Latents`."""
    weights, config = folder / WEIGHTS_NAME, folder / "config.json"
    save_state(latents.folded(read_weights(weights)), weights)
    save_settings({**read_settings(config), "scaling_factor": 1.0}, config)
