"""What files of weights are called, whoever wrote them. No torch here, so that what is asked for is
checked at once.
"""

from __future__ import annotations

import re

TENSORS = ".safetensors"
PICKLES = frozenset({".bin", ".ckpt", ".pkl", ".pt", ".pth"})
WEIGHTS = PICKLES | {TENSORS}
# What Accelerate, the trainers of transformers and EDM, and LightningDiT write beside a network's
# weights.
OF_TRAINING = re.compile(
    r"(optimizer|scheduler|sampler|scaler|dl_state_dict|rng_state|random_states|training_args"
    r"|training-state|latents_stats)([_-]\d+)*\.(bin|pkl|pt|pth|safetensors)"
)
DECODER_FOLDERS = ("vae", "vqvae")  # folders of a pipeline, or beside files of networks of latents
STATS = "latents_stats.pt"  # of LightningDiT, whose latents are normed channel by channel
