"""The science of ddim-flows: sampling, scoring and uncertainty, without a workflow engine.

What a script needs is here by name, imported from its room when it is first asked for, so that
`import ddim_core` costs nothing and needs neither Prefect nor MLflow. Our own code imports from the
rooms: a cache key follows those imports, and could not follow these.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddim_core.diffusion.noise import ImageNoise as ImageNoise
    from ddim_core.diffusion.noise import slerp as slerp
    from ddim_core.diffusion.sampling import ddim_step as ddim_step
    from ddim_core.diffusion.sampling import encode as encode
    from ddim_core.diffusion.sampling import sample as sample
    from ddim_core.diffusion.schedule import NoiseSchedule as NoiseSchedule
    from ddim_core.diffusion.schedule import timesteps as timesteps
    from ddim_core.diffusion.specs import SamplerSpec as SamplerSpec
    from ddim_core.features.extractor import PixelFeatures as PixelFeatures
    from ddim_core.images.load import load_images as load_images
    from ddim_core.images.pixels import from_uint8 as from_uint8
    from ddim_core.images.pixels import to_uint8 as to_uint8
    from ddim_core.networks.denoisers import UNetModel as UNetModel
    from ddim_core.points.chamfer import chamfer_distance as chamfer_distance
    from ddim_core.scores.cell_score import score as score
    from ddim_core.scores.distances.frechet import frechet_distance as frechet_distance
    from ddim_core.scores.distances.kernel import kid as kid
    from ddim_core.statistics.moments import FeatureMoments as FeatureMoments

_ROOMS = {
    "FeatureMoments": "statistics.moments",
    "ImageNoise": "diffusion.noise",
    "NoiseSchedule": "diffusion.schedule",
    "PixelFeatures": "features.extractor",
    "SamplerSpec": "diffusion.specs",
    "UNetModel": "networks.denoisers",
    "chamfer_distance": "points.chamfer",
    "ddim_step": "diffusion.sampling",
    "encode": "diffusion.sampling",
    "frechet_distance": "scores.distances.frechet",
    "from_uint8": "images.pixels",
    "kid": "scores.distances.kernel",
    "load_images": "images.load",
    "sample": "diffusion.sampling",
    "score": "scores.cell_score",
    "slerp": "diffusion.noise",
    "timesteps": "diffusion.schedule",
    "to_uint8": "images.pixels",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(
            f"ddim_core has no {name!r}; its public names are {', '.join(_ROOMS)}, and all else is "
            "imported from its room, such as ddim_core.features.registry"
        )
    return getattr(import_module(f"ddim_core.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_ROOMS])
