"""A score as text for a terminal: value, interval, counts and protocol."""

from __future__ import annotations

from collections.abc import Sequence

from ddim_core.features.protocol import Protocol
from ddim_core.reports.class_sentences import classes_said, shown_classes
from ddim_core.scores.per_class import PerClass
from ddim_core.scores.set_score import PairScore
from tasks.score_command.run import MatrixLine, PairResult, PeerResult, SavedStatistics


def as_text(result: PairResult | SavedStatistics) -> str:
    """Writes what `run_score` returned."""
    if isinstance(result, SavedStatistics):
        return (
            f"statistics of {result.n_images} images, {result.n_features} features: {result.saved}"
        )
    known = [*result.notes, *(doubt.text for doubt in result.doubts)]
    notes = [f"note: {note}" for note in known]
    peers = _peer(result.peer) if result.peer else []
    classes = _classes(result.classes) if result.classes else []
    lines = [*peers, *_scores(result.scores), *_matrix(result.matrix), *classes, ""]
    lines += _protocol(result.protocol)
    return "\n".join([*lines, *notes])


def _peer(found: PeerResult) -> list[str]:
    """A peer's numbers, before ours in its first feature space."""
    peer = found.peer
    lines = [f"as {peer.name} ({peer.version}):"]
    lines += [
        f"  {name:<30} {number.value:.9g}"
        + (f" [{number.low:.6g}, {number.high:.6g}]" if number.low is not None else "")
        for name, number in found.numbers.items()
    ]
    lines += [f"  not computed: {peer.left_out}"] if peer.left_out else []
    lines += [
        f"  by {name}: resize {told.features.resize}, {told.features.layer}"
        for name, told in found.protocols.items()
        if told.features
    ]
    return [*lines, "", f"ours, by {next(iter(found.protocols))}:"]


def _scores(scores: PairScore) -> list[str]:
    score, further = scores.score, scores.further
    counts = f"N = {_count(score.n_images)} against {_count(score.n_reference)}"
    fid = _with_interval(score.fid, score.fid_low, score.fid_high)
    lines = [f"FID          {fid}   {counts}"]
    if score.fid_inf is not None:
        fid_inf = _with_interval(score.fid_inf, score.fid_inf_low, score.fid_inf_high)
        lines.append(f"FID_inf      {fid_inf}")
    elif score.group_sizes:
        different = (score.n_images or 0) - (score.duplicates or 0)
        lines.append(f"FID_inf      not identifiable: {different} images are too few for "
                     f"{score.n_features} features")  # fmt: skip
    if score.fid_population is not None:
        both = _with_interval(
            score.fid_population, score.fid_population_low, score.fid_population_high
        )
        lines.append(f"populations  {both}   freed of the size of the reference too")
    if score.kid is not None and score.kid_std is not None:
        kid = _with_interval(score.kid, score.kid_low, score.kid_high, 1000)
        lines.append(f"KID x 1000   {kid}   unbiased, subsets of {score.kid_subset_size}, spread "
                     f"between them {1000 * score.kid_std:.3g}")  # fmt: skip
    if score.precision is not None:
        lines.append(f"precision    {score.precision:.4f}   recall {score.recall:.4f}")
    for name in ("density", "coverage", "vendi"):
        if (value := getattr(score, name)) is not None:
            ends = (getattr(score, f"{name}_{end}") for end in ("low", "high"))
            lines.append(f"{name:<12} {_with_interval(value, *ends)}")
    if further.inception_score is not None:
        lines.append(f"Inception score {further.inception_score:.5g}   spread between splits "
                     f"{further.inception_score_std:.3g}")  # fmt: skip
    if further.cmmd is not None:
        cmmd = _with_interval(further.cmmd, further.cmmd_low, further.cmmd_high)
        lines.append(f"CMMD         {cmmd}")
    return lines


def _with_interval(value: float, low: float | None, high: float | None, scale: float = 1.0) -> str:
    interval = "no interval"
    if low is not None and high is not None:
        interval = f"[{scale * low:.6g}, {scale * high:.6g}]"
    return f"{scale * value:.7g} {interval}"


def _matrix(matrix: Sequence[MatrixLine]) -> list[str]:
    """The same images by every protocol, if that was asked for."""
    lines = [
        f"  {line.extractor:>16} {line.resize:>6} {line.n_features:>6} features   FID "
        f"{_with_interval(line.fid, line.fid_low, line.fid_high)}   KID x 1000 "
        f"{_with_interval(line.kid, line.kid_low, line.kid_high, 1000)}"
        for line in matrix
    ]
    said = "the same images by every protocol at hand (never compare one line with another):"
    return ["", said, *lines] if lines else []


def _classes(scored: PerClass) -> list[str]:
    """Each class, and what they say together."""
    shown = shown_classes(scored)
    width = max(len(one.name) for one in shown)
    lines = ["", "by class:"]
    for one in shown:
        fid, share = one.fid, scored.share(one)
        told = "FID null"
        if fid is not None:
            told = f"FID {_with_interval(fid.fid, fid.low, fid.high)}, {fid.bias:.3g} of it bias"
        part = ""
        if share is not None:
            part = f"   {100 * share[0]:.1f} % [{100 * share[1]:.1f}, {100 * share[2]:.1f}] of the "
            part += f"images, {100 * scored.reference_share(one):.1f} % of the reference"
        lines.append(
            f"  {one.name:>{width}}   {one.n_images} against {one.n_reference}   {told}{part}"
        )
    if len(shown) < len(scored.classes):
        lines.append(
            f"  the {len(shown)} that stand out most of {len(scored.classes)}; --json has all"
        )
    return [*lines, *(f"classes      {said}" for said in classes_said(scored))]


def _protocol(protocol: Protocol) -> list[str]:
    features, taken = "unknown features", protocol.features
    if taken:
        features = f"{taken.extractor} features ({taken.layer}), "
        features += f"weights {(taken.extractor_weights_digest or 'none')[:12]}"
    lines = [f"protocol     {features}"]
    if taken and taken.resize != "none":
        lines.append(f"resize       {taken.resize}: {taken.resize_filter}, by "
                     f"{taken.resize_library}; then {taken.scaling}")  # fmt: skip
    sizes = (protocol.native_size, protocol.reference_native_size)
    if any(sizes):
        prepared = f", data resize {protocol.data_resize}, split {protocol.split}"
        lines.append(
            f"images       {sizes[0] or 'unknown size'} against {sizes[1] or 'unknown size'}"
            + (prepared if sizes[1] else "")
        )
    if protocol.sampler:
        settings = ", ".join(f"{name} {value}" for name, value in protocol.sampler.items())
        lines.append(f"sampler      {settings}, seed {protocol.seed}")
    lines.append(f"statistics   {protocol.statistics_digest}")
    lines.append(f"estimator    {protocol.estimator}")
    return lines


def _count(n: int | None) -> str:
    return "unknown" if n is None else str(n)
