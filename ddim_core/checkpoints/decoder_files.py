"""The autoencoder that belongs to one file of weights: where it lies, and what its latents are.

A file of DiT or LightningDiT holds a network of latents and nothing that makes pixels of them. The
autoencoder lies beside it as `vae`, or somewhere else in the form of diffusers.
"""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from ddim_core.checkpoints.checkpoint import Checkpoint
from ddim_core.checkpoints.formats.transformers import MARK, latent_stats
from ddim_core.checkpoints.latent import FOLDERS
from ddim_core.checkpoints.pipeline_files import present
from ddim_core.checkpoints.weight_files import save_settings
from ddim_core.common.plain_files import is_there
from ddim_core.safe_files.safe_load import read_weights
from ddim_core.safe_files.settings import read_settings

STATS = "latents_stats.pt"  # of LightningDiT, whose latents are normed channel by channel
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
        with safe_open(file, "pt") as weights:
            return any(name.endswith(MARK) for name in weights.keys())  # noqa: SIM118
    except (OSError, SafetensorError):  # whoever opens it says why
        return False


def decoder_files(folder: Path) -> dict[str, Path]:
    """Returns the files of the autoencoder in a folder, `vae/config.json` and so on; and those that
    say how its latents were normed. Empty where there are none."""
    found = {STATS: folder / STATS} if is_there(folder / STATS) else {}
    for part in FOLDERS:
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
    if not any(name.startswith(FOLDERS) for name in found):
        config = folder / "config.json"
        kind = str(read_settings(config).get("_class_name")) if is_there(config) else ""
        if not kind.startswith(("Autoencoder", "VQModel")):
            raise ValueError(f"{folder.name} has no vae and is no autoencoder itself; {HOW}")
        found |= present(folder, "vqvae" if kind == "VQModel" else "vae")
    return found


def write_latent_norm(stats: Path | None, multiplier: float | None, out: Path) -> None:
    """Writes how latents were normed into the configuration of their autoencoder, as diffusers has
    it for others (`latents_mean`, `latents_std`, `scaling_factor`).

    Args:
        stats: LightningDiT's file of means and standard deviations.
        multiplier: What the normed latents were multiplied by; None where they were not normed.
        out: The folder of the converted checkpoint.

    Raises:
        ValueError: If the latents were normed and nothing says by what.
    """
    place = next((out / p / "config.json" for p in FOLDERS if (out / p).is_dir()), None)
    if multiplier is None or place is None:
        return
    told = read_settings(place)
    if stats is None:
        raise ValueError(
            f"the network draws latents that were normed channel by channel, and there is no "
            f"{STATS} beside it or its autoencoder; LightningDiT's extract_features writes it (a "
            'network whose were not: {"latent_norm": false} in a config.json beside it)'
        )
    mean, std = latent_stats(read_weights(stats), told["latent_channels"], stats.name)
    normed = {"latents_mean": mean, "latents_std": std, "scaling_factor": multiplier}
    save_settings({**told, **normed}, place)


def require_decoder(loaded: Checkpoint) -> None:
    """Makes sure that what one file of weights draws becomes pixels.

    Raises:
        ValueError: If it draws latents and there is no autoencoder, or one of other latents.
    """
    drawn = int(loaded.model.unet.config["in_channels"])
    if loaded.latent is None and drawn not in (1, 3):
        raise ValueError(
            f"{loaded.name} draws latents of {drawn} channels, and there is no autoencoder that "
            f"makes pixels of them; {HOW}"
        )
    if loaded.latent is not None and drawn != (made := loaded.noise_shape[0]):
        raise ValueError(
            f"{loaded.name} draws {drawn} channels, and its autoencoder has latents of {made}; "
            "give the one that it was trained with"
        )
