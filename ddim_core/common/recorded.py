"""Records of all that decides a number, which are stored and compared by their bytes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any, Self


class Recorded:
    """A frozen dataclass of plain values that has bytes, and a digest by which it is compared."""

    @property
    def digest(self) -> str:
        """The sha256 of `to_bytes`: what has one digest may be compared."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """The record as JSON, its fields in order of their names."""
        fields: Any = self  # of the dataclass that this one is
        return json.dumps(asdict(fields), sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Reads what `to_bytes` made."""
        return cls(**json.loads(data))
