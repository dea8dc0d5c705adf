"""Records what the implementations that people quote say of tiny networks, pictures and prompts:
`tests/golden/image_scores.npz`. By hand, with the peers in folders of their own:

    pip install --target PEERS --no-deps openai-clip ftfy wcwidth hpsv2 torchmetrics \
        lightning-utilities
    pip install --target OLD --no-deps image-reward timm==0.6.13 transformers==4.27.4 \
        tokenizers==0.13.3
    git clone https://github.com/jmhessel/clipscore CLIPSCORE
    git clone https://github.com/christophschuhmann/improved-aesthetic-predictor AESTHETIC
    PYTHONPATH=. python tests/peers/record_image_scores.py PEERS OLD CLIPSCORE AESTHETIC

Each peer runs its own code whole, preprocessing included, in a process of its own. What is put in
its place: its weights and the width of its networks (tiny), its tokenizers' vocabulary (letters),
and what it imports for training alone.
"""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from unittest import mock

import numpy as np
import packaging.version
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "core" / "image_scores"))
import tiny

BPE = "bpe_simple_vocab_16e6.txt.gz"
GOLDEN = Path(__file__).parents[1] / "golden" / "image_scores.npz"


def stub(name: str, **names: object) -> None:
    """Stands for a module that a peer imports and does not use here."""
    module = types.ModuleType(name)
    module.__dict__.update(names)
    sys.modules[name] = module


def files(folder: Path, shape: str) -> list[str]:
    paths = [folder / f"{shape}-{i}.png" for i in range(len(tiny.PROMPTS))]
    for path, picture in zip(paths, tiny.pictures(shape), strict=True):
        Image.fromarray(picture).save(path)
    return [str(path) for path in paths]


def openai_clip() -> torch.nn.Module:
    """OpenAI's own CLIP, tiny."""
    from clip.model import CLIP

    heads = tiny.TEXT_WIDTH // 64
    network = CLIP(
        tiny.EMBED, tiny.SIZE, tiny.LAYERS, tiny.WIDTH, tiny.PATCH, tiny.LENGTH,
        len(tiny.CLIP_VOCABULARY), tiny.TEXT_WIDTH, heads, tiny.LAYERS,
    )  # fmt: skip
    network.load_state_dict(tiny.open_clip_state())
    return network.float().eval()


def tokenized(texts: str | list[str], *_args: object, **_options: object) -> torch.Tensor:
    told = [texts] if isinstance(texts, str) else texts
    return torch.tensor([tiny.letters(text) for text in told])


def clip_score(folder: Path, shape: str, place: str) -> list[float]:
    """`get_clip_score` of the authors' clipscore.py."""
    stub("pkg_resources", packaging=packaging)
    import clip

    sys.path.insert(0, place)
    stub("generation_eval_utils")
    import clipscore

    with mock.patch.object(clip, "tokenize", tokenized):
        prompts = list(tiny.PROMPTS)
        _, each, _ = clipscore.get_clip_score(openai_clip(), files(folder, shape), prompts, "cpu")
    return [float(value) for value in each]


def aesthetic(folder: Path, shape: str, place: str) -> list[float]:
    """The class and the function of simple_inference.py, and CLIP's own preprocessing, as there."""
    stub("pkg_resources", packaging=packaging)
    from clip.clip import _transform

    script = ast.parse(Path(place, "simple_inference.py").read_text())
    script.body = [x for x in script.body if isinstance(x, (ast.ClassDef, ast.FunctionDef))]
    lightning = types.SimpleNamespace(LightningModule=torch.nn.Module)
    names: dict[str, object] = {"pl": lightning, "nn": torch.nn, "np": np}
    exec(compile(script, "simple_inference.py", "exec"), names)
    network = names["MLP"](tiny.EMBED)  # type: ignore[operator]
    network.load_state_dict(tiny.head_state())
    network.eval()
    preprocess, found = _transform(tiny.SIZE), []
    for path in files(folder, shape):
        with torch.no_grad():
            seen = openai_clip().encode_image(preprocess(Image.open(path)).unsqueeze(0))
            unit = names["normalized"](seen.cpu().detach().numpy())  # type: ignore[operator]
            found.append(network(torch.from_numpy(unit).float()).item())
    return found


def hpsv2(folder: Path, shape: str, _place: str) -> list[float]:
    """`img_score.score` of the package hpsv2."""
    stub("clint", textui=None)
    stub("clint.textui", progress=None)
    # The wheel of hpsv2 1.2.0 lacks its tokenizer's file, which is CLIP's.
    package = next(Path(place) for place in sys.path if Path(place, "hpsv2").is_dir())
    shutil.copy(package / "clip" / BPE, package / "hpsv2" / "src" / "open_clip" / BPE)
    from hpsv2 import img_score
    from hpsv2.src.open_clip import factory

    factory._MODEL_CONFIGS["ViT-H-14"] = {
        "embed_dim": tiny.EMBED,
        "vision_cfg": {"image_size": tiny.SIZE, "layers": tiny.LAYERS, "width": tiny.WIDTH,
                       "head_width": 64, "patch_size": tiny.PATCH},
        "text_cfg": {"context_length": tiny.LENGTH, "vocab_size": len(tiny.CLIP_VOCABULARY),
                     "width": tiny.TEXT_WIDTH, "heads": 1, "layers": tiny.LAYERS},
    }  # fmt: skip
    made, weights = img_score.create_model_and_transforms, folder / "hps.pt"
    torch.save({"state_dict": tiny.open_clip_state()}, weights)

    def without_laion(name: str, _pretrained: str, **options: object) -> object:
        return made(name, None, **options)

    with (
        mock.patch.object(img_score, "create_model_and_transforms", without_laion),
        mock.patch.object(img_score, "get_tokenizer", return_value=tokenized),
    ):
        paths = files(folder, shape)
        return [
            float(img_score.score(path, prompt, str(weights))[0])
            for path, prompt in zip(paths, tiny.PROMPTS, strict=True)
        ]


def image_reward(folder: Path, shape: str, _place: str) -> list[float]:
    """`ImageReward.score` of the package image-reward."""
    stub("fairscale")
    stub("fairscale.nn")
    stub("fairscale.nn.checkpoint")
    stub("fairscale.nn.checkpoint.checkpoint_activations", checkpoint_wrapper=None)
    # The package's own __init__s import its training, and other scores.
    place = next(Path(place) for place in sys.path if Path(place, "ImageReward").is_dir())
    for name in ("ImageReward", "ImageReward.models"):
        stub(name, __path__=[str(place / name.replace(".", "/"))])
    from ImageReward import ImageReward as package  # noqa: N813
    from ImageReward.models.BLIP import blip, blip_pretrain
    from ImageReward.models.BLIP.vit import VisionTransformer
    from transformers import BertTokenizer

    tiny.write_bert_tokenizer(folder)
    (folder / "med_config.json").write_text(json.dumps(tiny.MED_CONFIG))
    vision = VisionTransformer(
        img_size=tiny.SIZE, patch_size=tiny.PATCH, embed_dim=tiny.REWARD_WIDTH, depth=tiny.LAYERS,
        num_heads=tiny.REWARD_WIDTH // 64,
    )  # fmt: skip
    tokenizer = BertTokenizer(str(folder / "vocab.txt"))
    layers = package.MLP(tiny.REWARD_TEXT)
    with (
        mock.patch.object(blip.BertTokenizer, "from_pretrained", return_value=tokenizer),
        mock.patch.object(blip_pretrain, "create_vit", return_value=(vision, tiny.REWARD_WIDTH)),
        mock.patch.object(package, "MLP", return_value=layers),
    ):
        network = package.ImageReward(med_config=str(folder / "med_config.json"))
    network.load_state_dict(tiny.reward_state())
    network.eval()
    with torch.no_grad():
        paths = files(folder, shape)
        return [network.score(p, path) for p, path in zip(tiny.PROMPTS, paths, strict=True)]


def torchmetrics(folder: Path, shape: str, project: str) -> list[float]:
    """`CLIPScore` of torchmetrics, with transformers' processor by Pillow.

    torchmetrics 1.9.0 takes the vectors themselves of transformers, which since its version 5
    returns them in an object; and it cuts a prompt that is too long without its last token.
    """
    sys.path.insert(0, project)
    from torchmetrics.multimodal.clip_score import CLIPScore
    from transformers import CLIPProcessor, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    from ddim_core.image_scores.networks.open_clip import clip_of

    network = clip_of(tiny.open_clip_state(), {"quick_gelu": True}, "the tiny CLIP")
    for name in ("get_image_features", "get_text_features"):
        whole = getattr(network, name)
        setattr(network, name, lambda *a, _whole=whole, **k: _whole(*a, **k).pooler_output)
    tiny.write_clip_tokenizer(folder)
    processor = CLIPProcessor(
        CLIPImageProcessorPil(
            size={"shortest_edge": tiny.SIZE},
            crop_size={"height": tiny.SIZE, "width": tiny.SIZE},
        ),
        CLIPTokenizer.from_pretrained(folder, model_max_length=tiny.LENGTH),
    )
    metric, found = CLIPScore(lambda: (network, processor)), []
    for picture, prompt in zip(tiny.pictures(shape), tiny.PROMPTS, strict=True):
        metric.reset()
        metric.update(torch.from_numpy(picture).permute(2, 0, 1)[None], [prompt])
        found.append(metric.compute().item())
    return found


PEERS = {f.__name__: f for f in (clip_score, aesthetic, hpsv2, image_reward, torchmetrics)}


def main() -> None:
    if sys.argv[1] in PEERS:
        name, place = sys.argv[1:]
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps({s: PEERS[name](Path(folder), s, place) for s in tiny.SHAPES}))
        return
    peers, old, clipscore, predictor = sys.argv[1:]
    found = {}
    for name, libraries, place in (
        ("clip_score", peers, clipscore), ("aesthetic", peers, predictor), ("hpsv2", peers, "-"),
        ("image_reward", old, "-"), ("torchmetrics", peers, str(Path(__file__).parents[2])),
    ):  # fmt: skip
        command = [sys.executable, __file__, name, place]
        environment = {"PYTHONPATH": libraries, "PATH": "/usr/bin:/bin"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout.splitlines()[-1])
        found |= {f"{name}/{shape}": np.array(values) for shape, values in told.items()}
        print(name, {shape: np.round(values, 4).tolist() for shape, values in told.items()})
    np.savez_compressed(GOLDEN, **found)


if __name__ == "__main__":
    main()
