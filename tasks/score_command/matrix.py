"""The same two sets of images by every extractor and resize at hand: what the choice alone does."""

from __future__ import annotations

from dataclasses import replace

from ddim_core.features.registry import ExtractorChoice, every_choice, pretrained
from tasks.score_command.request import ScoreRequest
from tasks.score_command.run import MatrixLine, PairResult, run_score


def score_matrix(request: ScoreRequest, scored: PairResult) -> PairResult:
    """Scores what was scored again, by every other protocol at hand.

    Features are kept in the store, so that a second time costs little.

    Args:
        request: What was asked.
        scored: What `run_score` returned for it.

    Returns:
        It, with one line a protocol, its own first.

    Raises:
        ValueError: If one of the sets has no images.
    """
    protocol, own = scored.protocol, scored.protocol.features
    sizes = {protocol.native_size, protocol.reference_native_size}
    if protocol.native_size is None or None in sizes:
        raise ValueError("a matrix of protocols needs two sets of images; one of these has none")
    values = 0
    if len(sizes) == 1 and "mixed" not in sizes:  # else pixels are no features
        height, width = protocol.native_size.split("x")
        values = int(height) * int(width) * 3
    lines = [_line(scored)]
    for choice in every_choice(_own(request), values or 10**9):
        if own is None or (choice.name, choice.resize) != (own.extractor, own.resize):
            again = replace(request, features=choice.name, feature_weights=choice.weights,
                            resize=choice.resize, save_stats=None, per_class=False)  # fmt: skip
            found = run_score(again)
            assert isinstance(found, PairResult)
            lines.append(_line(found))
    return replace(scored, matrix=tuple(lines))


def _own(request: ScoreRequest) -> ExtractorChoice:
    """The extractor whose other resizes are shown: where none is named, none needs weights."""
    choice = request.choice()
    return choice if choice and pretrained(choice.name) else ExtractorChoice("pixels")


def _line(result: PairResult) -> MatrixLine:
    features, score = result.protocol.features, result.scores.score
    assert score.kid is not None  # there are images on both sides
    return MatrixLine(
        features.extractor if features else None,
        features.resize if features else None,
        score.n_features,
        score.fid,
        score.fid_low,
        score.fid_high,
        score.kid,
        score.kid_low,
        score.kid_high,
        score.n_images,
        score.n_reference,
    )
