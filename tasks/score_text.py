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
    return "\n".join([*_scores(result), "", *_protocol(result["protocol"]), *_notes(result)])


def _scores(result: dict[str, Any]) -> list[str]:
    counts = f"N = {_count(result['n_images'])} against {_count(result['n_reference'])}"
    lines = [f"FID          {_with_interval(result, 'fid')}   {counts}"]
    if result["fid_inf"] is not None:
        lines.append(f"FID_inf      {_with_interval(result, 'fid_inf')}")
    elif result["group_sizes"]:
        lines.append("FID_inf      not identifiable: too few images for the number of features")
    if result["kid"] is not None:
        lines.append(f"KID x 1000   {1000 * result['kid']:.5g}   unbiased; spread between subsets "
                     f"{1000 * result['kid_std']:.3g}")  # fmt: skip
    if result["precision"] is not None:
        lines.append(f"precision    {result['precision']:.4f}   recall {result['recall']:.4f}")
    if result["inception_score"] is not None:
        lines.append(f"Inception score {result['inception_score']:.5g}   spread between splits "
                     f"{result['inception_score_std']:.3g}")  # fmt: skip
    if result["cmmd"] is not None:
        lines.append(f"CMMD         {_with_interval(result, 'cmmd')}")
    return lines


def _with_interval(result: dict[str, Any], name: str) -> str:
    low, high = result[f"{name}_low"], result[f"{name}_high"]
    interval = "no interval" if low is None or high is None else f"[{low:.6g}, {high:.6g}]"
    return f"{result[name]:.7g} {interval}"


def _protocol(protocol: dict[str, Any]) -> list[str]:
    features = "unknown features"
    if protocol["extractor"]:
        features = f"{protocol['extractor']} features ({protocol['layer']}), "
        features += f"weights {(protocol['weights_digest'] or 'none')[:12]}"
    lines = [f"protocol     {features}"]
    if protocol["resize"] not in (None, "none"):
        lines.append(f"resize       {protocol['resize']}: {protocol['resize_filter']}, by "
                     f"{protocol['resize_library']}; then {protocol['scaling']}")  # fmt: skip
    lines.append(
        f"images       {protocol['native_size'] or 'unknown size'} against "
        f"{protocol['reference_native_size'] or 'unknown size'}, data resize "
        f"{protocol['data_resize']}, split {protocol['split']}"
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
