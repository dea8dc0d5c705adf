"""What scores of each class are worth, by images per class; half a CPU minute.

    python -m benchmarks.per_class

writes per_class.json. Gaussian features; generated and real images of a class are equally many.

- `bias`: one class, d = 64. The plug-in distance, and what is left when the estimated bias is taken
  off, where the truth is 0 and where it is not; how the standard errors fit the spread over draws.
- `worst`: ten classes, d = 16, of ten spreads. How often a class is called worst where all miss the
  real ones by equally much, and where one of them misses by 1.5 standard deviations more in one
  direction; how often the shares are called other than asked where the judge errs in one image of
  20 whatever the class, and where it takes three tenths of one class for another.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ddim_core.scores.per_class import least_images, per_class

RESULTS = Path(__file__).with_name("per_class.json")
DRAWS, WORLDS, CLASSES = 60, 100, 10
SIZES = {64: (70, 128, 256, 640), 16: (40, 80, 160, 320)}


def bias() -> dict[str, Any]:
    """Both sides' bias, of one class."""
    random = np.random.default_rng(0)
    d = 64
    real = np.exp(0.7 * random.normal(size=d))
    other = real * np.exp(0.15 * random.normal(size=d))
    found: dict[str, Any] = {}
    for n in SIZES[d]:
        found[str(n)] = {}
        for name, scale in (("equal", real), ("unlike", other)):
            truth = float(((scale - real) ** 2).sum())
            fids = []
            for _ in range(DRAWS):
                drawn = (random.normal(size=(n, d)) * spread for spread in (scale, real))
                ours, theirs = (x.astype("f4") for x in drawn)
                of = np.zeros(n, dtype=np.int64)
                fids.append(per_class(["it"], ours, of, theirs, of, None, True).classes[0].fid)
            known = [fid for fid in fids if fid]
            left = [fid.fid - fid.bias for fid in known]
            found[str(n)][name] = {
                "truth": round(truth, 3), "fid": round(float(np.mean([f.fid for f in known])), 2),
                "left": round(float(np.mean(left)), 2), "sd": round(float(np.std(left)), 2),
                "se": round(float(np.mean([np.hypot(f.se, f.se_reference) for f in known])), 2),
            }  # fmt: skip
    return found


def worst() -> dict[str, Any]:
    """Ten classes, one of which may be worse."""
    d = 16
    found = {}
    for n in SIZES[d]:
        counts = np.zeros(4)
        for seed in range(WORLDS):
            random = np.random.default_rng(seed)
            labels = np.arange(n * CLASSES) % CLASSES
            spreads = np.exp(0.2 * random.normal(size=CLASSES))[labels][:, None]
            real = (random.normal(size=(len(labels), d)) * spreads).astype("f4")
            ours = (random.normal(size=(len(labels), d)) * spreads).astype("f4")
            ours[:, 0] += 0.7
            errs = random.random(len(labels)) < 0.05
            judged = np.where(errs, random.integers(0, CLASSES, len(labels)), labels)
            names = [str(i) for i in range(CLASSES)]
            even = per_class(names, ours, labels, real, labels, judged, asked=True)
            ours[labels == 3, 1] += 1.5 * spreads[labels == 3, 0]
            judged[(labels == 3) & (random.random(len(labels)) < 0.3)] = 5
            odd = per_class(names, ours, labels, real, labels, judged, asked=True)
            first, second = even.worst(), odd.worst()
            shares = even.shares_p_value(), odd.shares_p_value()
            counts += [
                first is not None and first.is_worse,
                second is not None and second.is_worse and second.scored.name == "3",
                *(p is not None and p < 0.05 for p in shares),
            ]
        told = ("false_worst", "found_worst", "false_shares", "found_shares")
        found[str(n)] = dict(zip(told, (counts / WORLDS).tolist(), strict=True))
    return found


def main() -> None:
    result = {
        "draws": DRAWS, "worlds": WORLDS,
        "least_images_by_features": {
            str(d): least_images(d) for d in (64, 256, 512, 768, 1024, 2048)
        },
        "bias": bias(), "worst": worst(),
    }  # fmt: skip
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
