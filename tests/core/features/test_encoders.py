"""Any encoder as an extractor: transformers' and timm's own embeddings of their own input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ddim_core.features.any_encoder import TransformersFeatures
from ddim_core.features.clip_dino import ClipFeatures
from ddim_core.features.registry import ExtractorChoice, open_extractor
from tests.networks import randomise, save_clip, save_dinov2

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 20, 28, 3), dtype=np.uint8)
# The same float32 network in another order of summation.
SAME_NETWORK = 1e-5


def assert_same(got: np.ndarray, expected: torch.Tensor) -> None:
    wanted = expected.detach().numpy()
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=0, atol=SAME_NETWORK * np.abs(wanted).max())


def save_vit(folder: Path) -> Path:
    """A tiny ViT with a preprocessor of its own."""
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        image_size=48, patch_size=16,
    )  # fmt: skip
    randomise(ViTModel(config)).save_pretrained(folder)
    processor = ViTImageProcessor(
        size={"height": 48, "width": 48}, image_mean=[0.4] * 3, image_std=[0.3] * 3, resample=3
    )
    processor.save_pretrained(folder)
    return folder


def test_a_transformers_encoder_sees_what_its_own_processor_makes(tmp_path: Path) -> None:
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModel

    folder = save_vit(tmp_path / "vit")
    choice = ExtractorChoice(f"transformers:{folder}")
    assert (choice.name, choice.resize) == ("transformers:vit", "pillow")
    extractor = open_extractor(choice)
    processor = AutoImageProcessor.from_pretrained(folder, use_fast=False)
    pixels = processor([Image.fromarray(image) for image in IMAGES], return_tensors="pt")
    model = AutoModel.from_pretrained(folder).eval()
    assert_same(extractor(IMAGES), model(**pixels).pooler_output)
    # From the store it is opened by the name in the record, wherever its folder lies then.
    again = open_extractor(ExtractorChoice(extractor.record.extractor, str(folder)))
    assert again.digest == extractor.digest


def test_a_pooler_that_nobody_trained_is_not_asked(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        image_size=48, patch_size=16,
    )  # fmt: skip
    network = randomise(ViTForImageClassification(config)).eval()
    network.save_pretrained(tmp_path / "vit")
    extractor = TransformersFeatures("transformers:vit", str(tmp_path / "vit"), "pillow")
    square = np.random.default_rng(1).integers(0, 256, (2, 48, 48, 3), dtype=np.uint8)
    pixels = torch.from_numpy(square).permute(0, 3, 1, 2) / 255
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    expected = network.vit(pixel_values=(pixels - mean) / std).last_hidden_state[:, 0]
    assert_same(extractor(square), expected)


def test_a_whole_clip_is_its_image_embedding_and_dinov2_its_class_token(tmp_path: Path) -> None:
    clip, dinov2 = save_clip(tmp_path / "clip"), save_dinov2(tmp_path / "dinov2")
    by_name = ClipFeatures(str(clip), "pillow", "clip-vit-l-14-336")(IMAGES)
    (clip / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "crop_size": {"height": 32, "width": 32},
                "image_mean": [0.48145466, 0.4578275, 0.40821073],
                "image_std": [0.26862954, 0.26130258, 0.27577711],
            }
        )
    )
    any_clip = TransformersFeatures("transformers:clip", str(clip), "pillow")
    np.testing.assert_array_equal(any_clip(IMAGES), by_name)
    any_dinov2 = TransformersFeatures("transformers:dinov2", str(dinov2), "pillow")
    assert (any_dinov2.dim, any_dinov2.size) == (32, 56)


def test_what_is_no_encoder_of_images_is_refused(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(**small, vocab_size=30)).save_pretrained(tmp_path / "text")
    with pytest.raises(ValueError, match="transformers:text"):
        open_extractor(ExtractorChoice(f"transformers:{tmp_path / 'text'}"))
    with pytest.raises(ValueError, match="are no local folder"):
        open_extractor(ExtractorChoice("transformers:nobody/nothing"))
    with pytest.raises(ValueError, match="must be one of classifier, pixels"):
        ExtractorChoice("timm:")


@pytest.fixture
def resnet(tmp_path: Path) -> Path:
    """A tiny network of timm, in the folder that timm writes for the hub."""
    timm = pytest.importorskip("timm")
    from timm.models import save_for_hf

    network = randomise(timm.create_model("resnet10t", pretrained=False, num_classes=5)).eval()
    save_for_hf(network, tmp_path / "resnet", safe_serialization=True)
    return tmp_path / "resnet"


def test_a_timm_network_sees_what_its_own_transform_makes(resnet: Path) -> None:
    import timm
    from PIL import Image
    from timm.data import create_transform, resolve_model_data_config

    extractor = open_extractor(ExtractorChoice("timm:resnet10t", str(resnet)))
    network = timm.create_model("resnet10t", pretrained=False, num_classes=5)
    timm.models.load_checkpoint(network, str(resnet / "model.safetensors"))
    network = network.eval()
    network.reset_classifier(0)
    about = resolve_model_data_config(network) | {"crop_pct": 1.0, "interpolation": "bicubic"}
    squares = np.stack([image[:20, :20] for image in IMAGES])
    transform = create_transform(**about)
    pixels = torch.stack([transform(Image.fromarray(image)) for image in squares])
    assert_same(extractor(squares), network(pixels))
    with pytest.raises(ValueError, match="holds the network 'resnet10t' of timm"):
        open_extractor(ExtractorChoice("timm:resnet18", str(resnet)))
