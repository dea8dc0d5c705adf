"""Pretrained extractors: whose numbers they give, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ddim_core.diffusion.specs import RESIZES
from ddim_core.features.clip_dino import ClipFeatures, Dinov2Features
from ddim_core.features.extractor import FeatureRecord, features_of
from ddim_core.features.inception import AfhqInceptionFeatures, InceptionFeatures
from ddim_core.features.model_folder import model_files, model_folder
from ddim_core.features.network import NetworkFeatures
from ddim_core.features.registry import EXTRACTORS, ExtractorChoice, open_extractor
from ddim_core.features.resize import resized
from tests.networks import (
    pytorch_fid_network,
    randomise,
    save_clip,
    save_dinov2,
    save_fid_inception,
)

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 20, 28, 3), dtype=np.uint8)
PIXELS = torch.from_numpy(IMAGES).permute(0, 3, 1, 2)
# The same float32 network in another order of summation.
SAME_NETWORK = 1e-5


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def fid_inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_fid_inception(tmp_path_factory.mktemp("inception") / "weights.pth")


@pytest.fixture(scope="module")
def torchvision_inception() -> torch.nn.Module:
    from torchvision.models import Inception3

    return randomise(Inception3(num_classes=3, aux_logits=True, init_weights=False)).eval()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_dinov2(tmp_path_factory.mktemp("dinov2"))


def assert_same(got: np.ndarray, expected: torch.Tensor) -> None:
    wanted = expected.detach().numpy()
    assert got.shape == wanted.shape
    assert wanted.std(axis=0).max() > 1e-3 * np.abs(wanted).max()  # images tell themselves apart
    np.testing.assert_allclose(got, wanted, rtol=0, atol=SAME_NETWORK * np.abs(wanted).max())


def test_tf1_is_torch_fidelitys_inception(fid_inception: Path) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    oracle = FeatureExtractorInceptionV3(
        "oracle", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(fid_inception)
    )
    features, logits = oracle(PIXELS)
    extractor = InceptionFeatures(str(fid_inception))
    got = extractor(IMAGES)
    assert_same(got, features)
    assert_same(extractor.class_scores(got), logits)
    assert len(torch.load(fid_inception, weights_only=True)) == 566


def test_torch_is_pytorch_fids_inception(fid_inception: Path) -> None:
    expected = pytorch_fid_network(fid_inception)(PIXELS / 255)[0][:, :, 0, 0]
    assert_same(InceptionFeatures(str(fid_inception), "torch")(IMAGES), expected)


def test_clean_is_clean_fids_resize_before_the_same_network(fid_inception: Path) -> None:
    from cleanfid.resize import build_resizer
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    resize = build_resizer("clean")
    expected = torch.from_numpy(np.stack([resize(image) for image in IMAGES])).permute(0, 3, 1, 2)
    assert resized(IMAGES, 299, "clean").equal(expected)
    oracle = FeatureExtractorInceptionV3(
        "oracle", ["2048"], feature_extractor_weights_path=str(fid_inception)
    )
    layers = torch.nn.Sequential(*list(oracle.children())[:-1], torch.nn.Flatten())
    assert_same(
        InceptionFeatures(str(fid_inception), "clean")(IMAGES), layers((expected - 128) / 128)
    )


def test_afhq_inception_is_torchvisions_pool(
    torchvision_inception: torch.nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / "afhq.pth"
    torch.save(torchvision_inception.state_dict(), path)
    kept = torchvision_inception.fc
    torchvision_inception.fc = torch.nn.Identity()
    big = torch.nn.functional.interpolate(
        PIXELS.float(), size=(299, 299), mode="bilinear", align_corners=False
    )
    expected = torchvision_inception(big / 127.5 - 1)
    torchvision_inception.fc = kept
    extractor = AfhqInceptionFeatures(str(path))
    got = extractor(IMAGES)
    assert_same(got, expected)
    assert_same(extractor.class_scores(got), kept(expected))


def test_afhq_inception_in_blocks_is_the_same(
    torchvision_inception: torch.nn.Module, tmp_path: Path
) -> None:
    state = torchvision_inception.state_dict()
    blocks = {
        "block1": ["Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"],
        "block2": ["Conv2d_3b_1x1", "Conv2d_4a_3x3"],
        "block3": [f"Mixed_{n}" for n in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e")],
        "block4": ["Mixed_7a", "Mixed_7b", "Mixed_7c"],
    }
    places = {name: f"{b}.{i}" for b, names in blocks.items() for i, name in enumerate(names)}
    in_blocks = {
        f"{places[layer]}.{rest}": value
        for key, value in state.items()
        for layer, rest in [key.split(".", 1)]
        if layer in places
    }
    torch.save(in_blocks, tmp_path / "blocks.ckpt")
    torch.save({"state_dict": state}, tmp_path / "names.pth")
    by_blocks = AfhqInceptionFeatures(str(tmp_path / "blocks.ckpt"))
    by_names = AfhqInceptionFeatures(str(tmp_path / "names.pth"))
    expected = by_names._network.state_dict()
    assert len(expected) == 94 * 6  # every convolution with its batch norm
    for name, value in by_blocks._network.state_dict().items():
        assert value.equal(expected[name]), name
    assert not by_blocks.has_classes
    with pytest.raises(ValueError, match="afhq-inception has no classes"):
        by_blocks.class_scores(np.zeros((1, 2048), np.float32))


def test_clip_is_transformers_image_embedding(clip: Path) -> None:
    from transformers import CLIPModel

    extractor = ClipFeatures(str(clip), "torch")
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    small = torch.nn.functional.interpolate(PIXELS / 255, size=(32, 32), mode="bilinear")
    model = CLIPModel.from_pretrained(clip).eval()
    expected = model.get_image_features(pixel_values=(small - mean) / std).pooler_output
    assert extractor.dim == 24
    assert_same(extractor(IMAGES), expected)
    assert not extractor.has_classes


def test_dinov2_is_transformers_class_token_at_224_pixels(dinov2: Path) -> None:
    from transformers import Dinov2Model

    extractor = Dinov2Features(str(dinov2), "torch")
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in
                 ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))  # fmt: skip
    big = torch.nn.functional.interpolate(PIXELS / 255, size=(224, 224), mode="bilinear")
    expected = Dinov2Model.from_pretrained(dinov2).eval()(pixel_values=(big - mean) / std)
    assert_same(extractor(IMAGES), expected.last_hidden_state[:, 0])


@pytest.fixture(scope="module")
def every_network(
    fid_inception: Path, clip: Path, dinov2: Path
) -> dict[str, Callable[[str], NetworkFeatures]]:
    return {
        "inception-v3": lambda how: InceptionFeatures(str(fid_inception), how),
        "clip-vit-b-32": lambda how: ClipFeatures(str(clip), how),
        "dinov2-vit-b-14": lambda how: Dinov2Features(str(dinov2), how),
    }


@pytest.mark.parametrize("name", ["inception-v3", "clip-vit-b-32", "dinov2-vit-b-14"])
def test_features_depend_on_neither_batch_nor_neighbours(name: str, every_network) -> None:
    extractor = every_network[name]("clean")
    together = extractor(IMAGES)
    # With one of another native size between them, each is in a batch of its own.
    mixed = features_of(extractor, [IMAGES[1], IMAGES[0, :9], IMAGES[0]])
    # Bit-equal as a rule; where memory lies may change the order of a float32 sum.
    rounding = 1e-6 * np.abs(together).max()
    np.testing.assert_allclose(mixed[[2, 0]], together, atol=rounding)
    if name != "inception-v3":  # seconds an image
        grey = IMAGES[:1, :, :, :1]
        assert np.array_equal(extractor(grey), extractor(grey.repeat(3, axis=-1)))
        many = np.tile(IMAGES, (9, 1, 1, 1))  # more than one batch
        np.testing.assert_allclose(extractor(many), np.tile(together, (9, 1)), atol=rounding)


def test_each_resize_is_a_protocol_of_its_own(every_network) -> None:
    made = [every_network["clip-vit-b-32"](how) for how in RESIZES]
    assert [e.record.resize for e in made] == list(RESIZES)
    assert len({e.digest for e in made}) == len(RESIZES)
    features = [e(IMAGES) for e in made]
    assert not np.allclose(features[0], features[1], atol=1e-3)
    for extractor in made:
        assert FeatureRecord.from_bytes(extractor.record.to_bytes()) == extractor.record
    with pytest.raises(
        ValueError, match="resize is 'lanczos'; it must be one of tf1, clean, torch"
    ):
        every_network["clip-vit-b-32"]("lanczos")


def test_no_resize_happens_at_the_networks_own_size() -> None:
    at_size = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    expected = torch.from_numpy(at_size).permute(0, 3, 1, 2).float()
    for how in RESIZES:
        assert resized(at_size, 32, how).equal(expected), how


def test_weights_count_by_content(clip: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    for name in ("config.json", "model.safetensors"):
        (copy / name).write_bytes((clip / name).read_bytes())
    assert ClipFeatures(str(copy)).digest == ClipFeatures(str(clip)).digest


def test_what_is_no_weights_file_is_refused(clip: Path, dinov2: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pth"
    torch.save({"a.weight": torch.zeros(2)}, other)
    with pytest.raises(ValueError, match=r"other\.pth holds the weights of another network"):
        InceptionFeatures(str(other))
    with pytest.raises(ValueError, match=r"other\.pth holds no torchvision Inception"):
        AfhqInceptionFeatures(str(other))
    torch.save(torch.nn.Linear(2, 2), other)  # a pickle that would run code
    for kind in (InceptionFeatures, AfhqInceptionFeatures):
        with pytest.raises(ValueError, match="holds no state dict"):
            kind(str(other))
    with pytest.raises(ValueError, match="is a 'dinov2'; clip-vit-b-32 must be a 'clip'"):
        ClipFeatures(str(dinov2))
    with pytest.raises(ValueError, match="is a 'clip'; dinov2-vit-b-14 must be a 'dinov2'"):
        Dinov2Features(str(clip))


def test_model_folders_lack_nothing(dinov2: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    (tmp_path / "config.json").write_text((dinov2 / "config.json").read_text())
    with pytest.raises(ValueError, match=r"lacks config\.json or weights"):
        Dinov2Features(str(tmp_path))
    weights = load_file(dinov2 / "model.safetensors")
    weights.pop("layernorm.weight")
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        ValueError, match=r"lacks 1 weights of dinov2-vit-b-14, among them layernorm"
    ):
        Dinov2Features(str(tmp_path))


@pytest.mark.parametrize("kind", [ClipFeatures, Dinov2Features])
def test_pickled_weights_are_read_as_plain_tensors_or_not_at_all(
    kind: Callable[[str], NetworkFeatures], clip: Path, dinov2: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    whole = clip if kind is ClipFeatures else dinov2
    (tmp_path / "config.json").write_text((whole / "config.json").read_text())
    pickled = tmp_path / "pytorch_model.bin"
    torch.save(load_file(whole / "model.safetensors"), pickled)
    same = kind(str(tmp_path))
    assert np.array_equal(same(IMAGES), kind(str(whole))(IMAGES))
    ran = tmp_path / "ran"
    torch.save({"weight": Planted(ran)}, pickled)
    with pytest.raises(ValueError, match="cannot be opened as"):
        kind(str(tmp_path))
    pickled.write_bytes(b"no pickle")
    with pytest.raises(ValueError, match="cannot be opened as"):
        kind(str(tmp_path))
    assert not ran.exists()


class Planted:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def test_weights_of_the_hub_are_its_safetensors_or_else_its_pickle(
    dinov2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def snapshot_download(place: str, allow_patterns: list[str], **_how: object) -> str:
        asked.append(allow_patterns)
        there = {"config.json", "pytorch_model.bin"} & set(allow_patterns)
        for name in there:
            (tmp_path / name).write_bytes(b"{}")
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    folder = model_folder("owner/name", "clip-vit-b-32")
    assert model_files(folder) == ("config.json", "pytorch_model.bin")
    assert asked == [["config.json", "model.safetensors"], ["config.json", "pytorch_model.bin"]]


def test_a_hub_that_is_out_of_reach_is_said_in_one_sentence() -> None:
    with pytest.raises(ValueError, match="'facebook/dinov2-base' of dinov2-vit-b-14 are no local"):
        Dinov2Features()
    with pytest.raises(ValueError, match="give a local folder"):
        ClipFeatures("no such/place at all")


def test_the_resize_may_stand_behind_the_name(clip: Path) -> None:
    choice = ExtractorChoice("clip-vit-b-32-tf1", str(clip))
    assert (choice.name, choice.resize, choice.label) == (
        "clip-vit-b-32", "tf1", "clip-vit-b-32-tf1",
    )  # fmt: skip
    assert open_extractor(choice).record.resize == "tf1"
    assert ExtractorChoice("inception-v3").label == "inception-v3-tf1"
    assert ExtractorChoice("pixels").label == "pixels"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (("vgg",), "features is 'vgg'; it must be one of classifier, pixels, inception-v3"),
        (("pixels", "", "clean"), "resize is 'clean', but pixels features see images as they are"),
        (
            ("inception-v3-clean", "", "tf1"),
            "features is 'inception-v3-clean', but resize is 'tf1'",
        ),
        (("inception-v3", "", "area"), "resize is 'area'; it must be one of tf1, clean, torch"),
        (("inception-v3", "/no/such/file"), "no file of feature_weights '/no/such/file'"),
        (("afhq-inception",), "afhq-inception needs feature_weights"),
    ],
)
def test_an_extractor_that_cannot_be_is_refused(given: tuple[str, ...], wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted):
        ExtractorChoice(*given)


def test_the_extractors_have_these_names() -> None:
    assert set(EXTRACTORS) == {
        "inception-v3", "inception-v3-spatial", "afhq-inception", "clip-vit-b-32",
        "clip-vit-l-14-336", "dinov2-vit-b-14", "dinov2-vit-l-14", "classifier", "pixels",
    }  # fmt: skip
