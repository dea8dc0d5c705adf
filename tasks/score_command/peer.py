"""`ddim score --as PEER`: the same two sets by a peer's whole protocol, under its names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ddim_core.common.plain_files import is_there
from ddim_core.features.registry import pretrained
from ddim_core.peers.catalogue import Space, peer_named
from ddim_core.peers.numbers import Number, Sides
from ddim_core.scores.set_score import FeatureSet, frechet_of_pair, score_pair
from tasks.score_command.request import ScoreRequest
from tasks.score_command.run import PairResult, PeerResult, scored_pair


def score_as(request: ScoreRequest) -> PairResult:
    """Scores two sets as a peer does.

    Images are read as stored, as peers read them. Beside the peer's numbers stand all of ours in
    its first feature space; of its others only the distance is taken.

    Args:
        request: What was asked; its `peer` says whose protocol, its `features` which of the peer's
            spaces alone.

    Raises:
        ValueError: If a place, or the weights of a space, cannot be had.
    """
    request.check()
    assert request.reference is not None
    peer = peer_named(request.peer)
    spaces = [s for s in peer.spaces if request.features in (None, s.extractor)]
    numbers: dict[str, Number] = {}
    found: list[PairResult] = []
    for space in spaces:
        asked = replace(
            request, features=space.extractor, resize=space.resize, as_stored=True,
            feature_weights=_weights_of(space, request.feature_weights),
            save_stats=None if found else request.save_stats,
        )  # fmt: skip
        measure = frechet_of_pair if found else score_pair
        result, generated, reference = scored_pair(asked, request.reference, measure)
        scores = result.scores
        _require_given(space, generated, reference)
        numbers |= space.numbers(Sides(generated, reference, scores.score, scores.further))
        found.append(result)
    protocols = {s.extractor: r.protocol for s, r in zip(spaces, found, strict=True)}
    return replace(found[0], peer=PeerResult(peer, numbers, protocols))


def _require_given(space: Space, *sides: FeatureSet) -> None:
    """Refuses features that were given, and say nothing of themselves, where they cannot be the
    peer's: any other file would get its numbers."""
    if any(side.extractor is not None or side.record is not None for side in sides):
        return  # the other has to agree with it
    for side in sides:
        if side.dim != space.columns:
            raise ValueError(
                f"{side.name} has {side.dim} features, and {space.extractor} has {space.columns}; "
                "give images, or features of it"
            )


def _weights_of(space: Space, told: str) -> str:
    """Of places, with commas between, the one of this space's kind: a file, or a folder or id."""
    known = pretrained(space.extractor)
    assert known is not None
    for place in filter(None, told.split(",")):
        if is_there(Path(place)) != known.folder:
            return place
    return ""
