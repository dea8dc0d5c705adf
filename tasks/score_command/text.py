"""A score as text for a terminal: value, interval, counts and protocol."""

from __future__ import annotations

from typing import Any


def as_text(result: dict[str, Any]) -> str:
    """Writes what `run_score` returned."""
    if "saved" in result:
        return (
            f"statistics of {result['n_images']} images, {result['n_features']} features: "
            f"{result['saved']}"
        )
    protocol = _protocol(result["protocol"])
    return "\n".join([*_scores(result), *_matrix(result), "", *protocol, *_notes(result)])


def _scores(result: dict[str, Any]) -> list[str]:
    counts = f"N = {_count(result['n_images'])} against {_count(result['n_reference'])}"
    lines = [f"FID          {_with_interval(result, 'fid')}   {counts}"]
    if result["fid_inf"] is not None:
        lines.append(f"FID_inf      {_with_interval(result, 'fid_inf')}")
    elif result["group_sizes"]:
        lines.append(f"FID_inf      not identifiable: {result['n_images']} images are too few for "
                     f"{result['n_features']} features")  # fmt: skip
    if result["kid"] is not None:
        lines.append(f"KID x 1000   {_with_interval(result, 'kid', 1000)}   unbiased, subsets of "
                     f"{result['kid_subset_size']}, spread between them "
                     f"{1000 * result['kid_std']:.3g}")  # fmt: skip
    if result["precision"] is not None:
        lines.append(f"precision    {result['precision']:.4f}   recall {result['recall']:.4f}")
    if result["inception_score"] is not None:
        lines.append(f"Inception score {result['inception_score']:.5g}   spread between splits "
                     f"{result['inception_score_std']:.3g}")  # fmt: skip
    if result["cmmd"] is not None:
        lines.append(f"CMMD         {_with_interval(result, 'cmmd')}")
    return lines


def _with_interval(result: dict[str, Any], name: str, scale: float = 1.0) -> str:
    low, high = result[f"{name}_low"], result[f"{name}_high"]
    interval = "no interval"
    if low is not None and high is not None:
        interval = f"[{scale * low:.6g}, {scale * high:.6g}]"
    return f"{scale * result[name]:.7g} {interval}"


def _matrix(result: dict[str, Any]) -> list[str]:
    """The same images by every protocol, if that was asked for."""
    lines = [
        f"  {line['extractor']:>16} {line['resize']:>6} {line['n_features']:>6} features   FID "
        f"{_with_interval(line, 'fid')}   KID x 1000 {_with_interval(line, 'kid', 1000)}"
        for line in result.get("matrix", [])
    ]
    said = "the same images by every protocol at hand (never compare one line with another):"
    return ["", said, *lines] if lines else []


def _protocol(protocol: dict[str, Any]) -> list[str]:
    features = "unknown features"
    if protocol["extractor"]:
        features = f"{protocol['extractor']} features ({protocol['layer']}), "
        features += f"weights {(protocol['extractor_weights_digest'] or 'none')[:12]}"
    lines = [f"protocol     {features}"]
    if protocol["resize"] not in (None, "none"):
        lines.append(f"resize       {protocol['resize']}: {protocol['resize_filter']}, by "
                     f"{protocol['resize_library']}; then {protocol['scaling']}")  # fmt: skip
    sizes = (protocol["native_size"], protocol["reference_native_size"])
    if any(sizes):
        prepared = f", data resize {protocol['data_resize']}, split {protocol['split']}"
        lines.append(
            f"images       {sizes[0] or 'unknown size'} against {sizes[1] or 'unknown size'}"
            + (prepared if sizes[1] else "")
        )
    if protocol["sampler"]:
        settings = ", ".join(f"{name} {value}" for name, value in protocol["sampler"].items())
        lines.append(f"sampler      {settings}, seed {protocol['seed']}")
    lines.append(f"statistics   {protocol['statistics_digest']}")
    lines.append(f"estimator    {protocol['estimator']}")
    return lines


def _notes(result: dict[str, Any]) -> list[str]:
    return [f"note: {note}" for note in result["notes"]]


def _count(n: int | None) -> str:
    return "unknown" if n is None else str(n)
