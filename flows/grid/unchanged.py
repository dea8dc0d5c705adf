"""A grid that was run before and would come out the same: its result, without Prefect or torch.

After a whole run what came of it is kept, named by all that decides it: every field of the request,
the bytes of the data set, of the checkpoint and of feature weights, all of our code, and the
versions of the libraries that draw. It counts only while every row and page that it names has the
bytes it had then.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from pydantic import TypeAdapter

from ddim_core.common.digest import digest, file_digest
from ddim_core.decisions.checkpoints.lora_rows import digests_over, rows_of_lora, rows_of_loras
from ddim_core.features.model_folder import local_inception_weights
from ddim_core.features.registry import at_hand, pretrained
from ddim_core.image_scores.registry import choices_of
from ddim_core.images.load import EMBEDDED, open_source
from flows.grid.outcome import GridOutcome
from flows.requests.flat import values
from flows.requests.grid import GridRequest
from flows.requests.images import NONE, PREVIOUS
from flows.requests.samplers.cells import ALL_ARITHMETIC, versions
from tasks.checkpoints.addresses import BESIDE, is_local
from tasks.checkpoints.loras import split_lora
from tasks.storage import places, store

PACKAGES = ("ddim_core", "tasks", "flows")
LARGE = 2**20  # bytes; what lies beside a weights file and is larger is no setting of it
RESULT = "result"


def state_of(request: GridRequest) -> str | None:
    """Returns the name of all that decides what comes of a grid.

    None where another place has to be asked (a hub, MLflow), or more is wanted than the table and
    its report: a gate, a promotion, a comparison with a checkpoint that is scored first.
    """
    if (
        request.verdict.gate
        or request.verdict.promote
        or request.verdict.against not in (PREVIOUS, NONE)
    ):
        return None
    model = request.model
    if any(p and not is_local(p) for p in (model.checkpoint, model.configuration, model.guide)):
        return None
    if request.real.dataset not in EMBEDDED and not is_local(request.real.dataset):
        return None
    weights = _feature_weights(request)
    judges = [choice.place for choice in choices_of(request.scores.image_scores)]
    if weights is None or not all(place and Path(place).is_dir() for place in judges):
        return None
    return digest(
        values(request),
        open_source(request.real.dataset, request.real.spec).content(),
        _content(request.model.checkpoint),
        _content(request.model.configuration),
        _content(request.model.guide),
        _content(request.model.prompts),
        [_content(split_lora(text)[0]) for text in request.model.lora],
        [weights, *map(_content, judges)],
        at_hand() if request.scores.matrix_images else [],
        [str(Path(p).resolve()) for p in (request.model.checkpoint, request.real.dataset) if p],
        os.environ["MLFLOW_TRACKING_URI"],
        _code(),
        sys.version,
        versions(*ALL_ARITHMETIC),
    )


def kept_result(state: str | None) -> GridOutcome | None:
    """Returns what the flow returned then, with no image drawn; None if any of it is not whole."""
    ref = store.bound(_name(state), store.ArtifactRef).get(RESULT) if state else None
    if ref is None:
        return None
    try:
        kept = json.loads(store.get(ref))
        for place, content in kept["files"].items():
            if _sha256(place) != content:
                return None
    except (FileNotFoundError, store.DamagedArtifactError):
        return None
    if not _mlflow_is_there() or _comparable(kept["result"]["cells"]) != kept["comparable"]:
        return None
    return replace(TypeAdapter(GridOutcome).validate_python(kept["result"]), images_drawn=0)


def keep_result(before: str | None, after: str | None, result: GridOutcome) -> None:
    """Keeps what a whole run returned, if nothing that decides it has changed meanwhile."""
    if before is None or before != after or result.damaged or not result.report:
        return
    pages = [result.report, *([result.verdict.page] if result.verdict else [])]
    files = [_row_file(cell) for cell in result.cells]
    for page in pages:
        folder = page.removeprefix(places.data_url()).lstrip("/").rsplit("/", 1)[0]
        names = store.names_below(places.data_url(folder))
        files += [f"{folder}/{name}" for name in sorted(names) if not name.startswith(".")]
    content = {
        "result": asdict(result),
        "files": {file: _sha256(file) for file in files},
        "comparable": _comparable(result.cells),
    }
    ref = store.put(json.dumps(content, sort_keys=True).encode(), RESULT)
    store.bind(f"{_name(before)}/{RESULT}", ref)


def _name(state: str) -> str:
    return f"unchanged/{state}"


def _comparable(cells: list[str]) -> str:
    """The digest of the rows, of whatever checkpoint, that the verdict and its page are made of."""
    from tasks.reports.verdict import history
    from tasks.storage.cell_rows import read_rows

    rows = read_rows(cells).rows
    found, damaged, _ = history(rows)
    for lora in dict.fromkeys(lora for row in rows for lora in digests_over(row)):
        told_as = partial(rows_of_loras, base=rows[0].weights_digest)
        found += history(rows_of_lora(rows, lora), told_as)[0]
    files = sorted({_row_file(row.cell_digest) for row in found})
    return digest([[file, _sha256(file)] for file in files], list(damaged))


def _row_file(cell: str) -> str:
    return f"results/cells/{cell}.parquet"


def _sha256(file: str) -> str:
    """Of a file below DDIM_DATA."""
    return hashlib.sha256(store.read(places.data_url(file))).hexdigest()


def _mlflow_is_there() -> bool:
    """Tells whether MLflow's database, where it is a file, has not been deleted since."""
    kind, _, place = os.environ["MLFLOW_TRACKING_URI"].partition(":///")
    return kind != "sqlite" or Path(place).is_file()


def _feature_weights(request: GridRequest) -> str | None:
    """The content of the weights behind the features; None where a hub has to be asked."""
    choice = request.extractor()
    if pretrained(choice.name) is None:
        return ""
    if choice.weights:
        return _content(choice.weights) if is_local(choice.weights) else None
    usual = local_inception_weights() if choice.name == "inception-v3" else None
    return file_digest(usual) if usual else None


def _content(place: str) -> str:
    """The digest of all that may be read of a place: a folder's files, or a file and its settings.

    It covers more than what is read, so that what changes it for nothing costs one ordinary run.
    """
    if not place:
        return ""
    path = Path(place)
    if path.is_dir():
        files = _files_below(path)
        beside = [path.parent / "scheduler", path.parent]
    else:
        files = [path, *(f for name in sorted(BESIDE) for f in _files_below(path.parent / name))]
        beside = [path.parent, path.parent / "scheduler", path.parent.parent / "scheduler"]
    for folder in beside:
        files += [f for f in sorted(folder.glob("*")) if f.is_file() and f.stat().st_size < LARGE]
    return digest([[str(file), _digest_of(file)] for file in files])


def _digest_of(file: Path) -> str:
    """A file's content; of one that cannot be read, as strangers' in /tmp, that it cannot."""
    try:
        return file_digest(file)
    except OSError as error:
        return f"unreadable: {error.errno}"


def _files_below(folder: Path) -> list[Path]:
    """All regular files below a folder, through links too, each folder once."""
    found, seen = [], set()
    for here, names, files in os.walk(folder, followlinks=True):
        about = Path(here).stat()
        if (about.st_dev, about.st_ino) in seen:
            names.clear()
            continue
        seen.add((about.st_dev, about.st_ino))
        names.sort()
        found += [p for file in sorted(files) if (p := Path(here, file)).is_file()]
    return found


def _code() -> str:
    """The digest of every source and template of ours, to the byte: wider than any cache key."""
    root = Path(__file__).parents[2]
    files = [
        file
        for package in PACKAGES
        for file in sorted((root / package).rglob("*"))
        if file.suffix in (".py", ".html")
    ]
    return digest([[file.relative_to(root).as_posix(), file_digest(file)] for file in files])
