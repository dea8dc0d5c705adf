"""Records what peers' own code says of small sets, as tests/golden/peers.npz.

    python tests/peers/record.py SOURCES PACKAGES TENSORFLOW JAX

SOURCES is a folder with clones of openai/guided-diffusion, NVlabs/edm2, layer6ai-labs/dgm-eval and
facebookresearch/dinov2, and cmmd's `distance.py` and `io_util.py` (of google-research/cmmd, without
the imports of its network) in `cmmd`. PACKAGES, TENSORFLOW and JAX are folders that `pip install
--target` filled with prdc and vendi-score, with tensorflow-cpu, and with jax. None of it is part of
the project.

The networks are random: FID's Inception by `networks.save_fid_inception`, DINOv2 one block wide as
its authors' class builds it. Where a peer draws from NumPy's global stream it is seeded with 0.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "golden"
sys.path.insert(0, str(HERE.parent))
N, M = 12, 10  # images of the whole programs


def features(n: int, d: int, seed: int, spread: float = 1.0, shift: float = 0.0) -> np.ndarray:
    """Positive features of two modes, exactly those of float16."""
    random = np.random.default_rng(seed)
    rows = spread * random.normal(size=(n, d)) + shift + 2.0 * random.integers(0, 2, (n, 1))
    return np.maximum(rows + 1.0, 0.0).astype(np.float16)


def images(n: int, seed: int, low: int, high: int) -> np.ndarray:
    """Smooth pictures of 32 x 24 pixels."""
    random = np.random.default_rng(seed)
    small = random.integers(low, high, (n, 6, 6, 3), dtype=np.uint8)
    resized = [Image.fromarray(s).resize((32, 24), Image.Resampling.BICUBIC) for s in small]
    return np.stack([np.asarray(image) for image in resized])


def dgm_eval(folder: Path, packages: Path, x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """dgm-eval's fd, kd and prdc in the order of its program, its Vendi score; and the packages."""
    sys.path[:0] = [str(folder / "dgm_eval"), str(packages)]
    import scipy.sparse

    scipy.sparse.csr = types.SimpleNamespace(csr_matrix=scipy.sparse.csr_matrix)  # as vendi-score
    from metrics import fd, mmd, prdc, vendi
    from prdc import compute_prdc
    from vendi_score import vendi as package

    np.random.seed(0)
    told = {"fd": fd.compute_FD_with_reps(y, x)}
    values = mmd.compute_mmd(y, x)
    told |= {"kd_value": values.mean(), "kd_variance": values.std()}
    least = min(10_000, len(x), len(y))
    of_y = np.random.choice(len(y), least, replace=False)
    of_x = np.random.choice(np.arange(len(x)), least, replace=False)
    told |= prdc.compute_prdc(y[of_y], x[of_x], nearest_k=5)
    told |= {"vendi": vendi.compute_vendi_score(x), "vendi_dual": package.score_dual(x)}
    told |= {"vendi_few": package.score_X(x[:5])}
    return told | {f"all_{name}": value for name, value in compute_prdc(y, x, 5).items()}


def clean_fid(x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    from cleanfid import fid

    np.random.seed(0)
    kid = fid.kernel_distance(x.astype(np.float32), y.astype(np.float32))
    return {"kid": kid, "fid": fid.fid_from_feats(x, y)}


def dinov2(folder: Path, size: int, registers: int) -> torch.nn.Module:
    """A network of the authors' class: one block of 16 numbers, with their hub's settings."""
    sys.path.insert(0, str(folder))
    from dinov2.models.vision_transformer import DinoVisionTransformer
    from networks import randomise

    torch.manual_seed(0)
    network = DinoVisionTransformer(
        img_size=size, patch_size=14, embed_dim=16, depth=1, num_heads=2, init_values=1.0,
        block_chunks=0, num_register_tokens=registers, interpolate_antialias=bool(registers),
        interpolate_offset=0.0 if registers else 0.1,
    )  # fmt: skip
    randomise(network)
    state = {k: v.half().float() for k, v in network.state_dict().items()}
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def edm2(folder: Path, network: torch.nn.Module, a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    """EDM2's DINOv2 features, its statistics (whose pickle is kept) and its distance."""
    sys.path.insert(0, str(folder))
    import calculate_metrics as calculate

    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    detector = calculate.DINOv2Detector.__new__(calculate.DINOv2Detector)
    calculate.Detector.__init__(detector, feature_dim=16)
    detector.resize_mode, detector.model = "torch", network
    calculate._detector_cache["fd_dinov2"] = detector
    stats, how = [], {"metrics": ["fd_dinov2"], "verbose": False, "device": torch.device("cpu")}
    for pictures, place in ((a, None), (b, str(GOLDEN / "edm2_stats.pkl"))):
        batches = [torch.from_numpy(pictures).permute(0, 3, 1, 2)]
        stats += [
            r.stats for r in calculate.calculate_stats_for_iterable(batches, dest_path=place, **how)
        ]
    found = calculate.calculate_metrics_from_stats(*stats, metrics=["fd_dinov2"], verbose=False)
    rows = detector(torch.from_numpy(a).permute(0, 3, 1, 2))
    return {"features": rows.numpy(), "fd_dinov2": found["fd_dinov2"]}


def dgm_features(folder: Path, network: torch.nn.Module, a: np.ndarray) -> np.ndarray:
    """dgm-eval's DINOv2 features, by its own transform."""
    sys.path.insert(0, str(folder))
    package = types.ModuleType("dgm_eval")  # without its other encoders, which need more packages
    package.__path__ = [str(folder / "dgm_eval")]
    models = types.ModuleType("dgm_eval.models")
    models.__path__ = [str(folder / "dgm_eval" / "models")]
    sys.modules |= {"dgm_eval": package, "dgm_eval.models": models}
    from dgm_eval.models.dinov2 import DINOv2Encoder

    encoder = DINOv2Encoder.__new__(DINOv2Encoder)
    torch.nn.Module.__init__(encoder)
    encoder.clean_resize, encoder.model = False, network
    rows = [encoder.transform(Image.fromarray(image)) for image in a]
    return encoder(torch.stack(rows).float()).numpy()


def cmmd(folder: Path, jax: Path, x: np.ndarray, y: np.ndarray, a: np.ndarray) -> dict[str, Any]:
    """cmmd's distance of unit rows, and its crop and resize of one wide picture."""
    unit = [z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y)]
    code = (
        "import sys, numpy as np; sys.path[:0] = sys.argv[1:3]; import distance;"
        "z = np.load(sys.argv[3]); print(float(distance.mmd(z['x'], z['y'])))"
    )
    with tempfile.TemporaryDirectory() as work:
        np.savez(Path(work) / "z.npz", x=unit[0].astype("f4"), y=unit[1].astype("f4"))
        said = subprocess.run(
            [sys.executable, "-c", code, str(jax), str(folder), f"{work}/z.npz"],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        Image.fromarray(a[0]).save(Path(work) / "a.png")
        sys.path.insert(0, str(folder))
        import io_util

        resized = io_util._read_image(f"{work}/a.png", 40)
    return {"cmmd": float(said), "resized": resized.astype(np.uint8)}


def adm(folder: Path, tensorflow: Path, a: np.ndarray, b: np.ndarray, x: Any, y: Any) -> Any:
    """ADM's whole evaluator on two files of images, and its precision and recall of features."""
    from networks import save_fid_inception
    from peers.adm_graph import save_layers
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    with tempfile.TemporaryDirectory() as work:
        weights = save_fid_inception(Path(work) / "weights.pth")
        save_layers(
            FeatureExtractorInceptionV3("i", ["2048"], feature_extractor_weights_path=str(weights)),
            Path(work) / "layers.npz",
        )
        np.savez(Path(work) / "a.npz", a)
        np.savez(Path(work) / "b.npz", b)
        np.savez(Path(work) / "rows.npz", x=x.astype("f4"), y=y.astype("f4"))
        places = [str(tensorflow), str(HERE), str(folder / "evaluations")]
        subprocess.run([sys.executable, str(HERE / "run_adm.py"), *places], cwd=work, check=True)
        return json.loads((Path(work) / "told.json").read_text())


def main() -> None:
    sources, packages, tensorflow, jax = (Path(p).resolve() for p in sys.argv[1:])
    x, y = features(1100, 8, 1, 0.9, 0.3), features(1200, 8, 2)
    wide_x, wide_y = features(400, 64, 3, 0.9, 0.1), features(300, 64, 4)
    a, b = images(N, 5, 30, 200), images(M, 6, 50, 220)
    exact = [z.astype(np.float64) for z in (x, y)]
    told: dict[str, Any] = {
        "dgm-eval": dgm_eval(sources / "dgm-eval", packages, *exact),
        "clean-fid": clean_fid(*exact),
        "adm": adm(sources / "guided-diffusion", tensorflow, a, b, wide_x, wide_y),
    }
    arrays = {"x": x, "y": y, "wide_x": wide_x, "wide_y": wide_y, "a": a, "b": b}
    by_cmmd = cmmd(sources / "cmmd", jax, *exact, a)
    arrays["cmmd_resized"], told["cmmd"] = by_cmmd["resized"], by_cmmd["cmmd"]
    for registers in (0, 4):
        network = dinov2(sources / "dinov2", 518, registers)
        name = f"dinov2_{registers}"
        state = network.state_dict()
        arrays |= {f"{name}/{key}": value.half().numpy() for key, value in state.items()}
        arrays[f"{name}_dgm"] = dgm_features(sources / "dgm-eval", network, a)
        if not registers:
            by_edm2 = edm2(sources / "edm2", network, a, b)
            arrays["edm2_features"] = by_edm2["features"]
            told["edm2"] = {"fd_dinov2": by_edm2["fd_dinov2"]}
    meta = json.dumps(told, default=float, sort_keys=True, indent=1)
    np.savez_compressed(GOLDEN / "peers.npz", meta=np.array(meta), **arrays)
    print(meta)


if __name__ == "__main__":
    main()
