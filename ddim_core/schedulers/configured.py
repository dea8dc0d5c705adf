"""The configuration that schedulers of ours have in common with diffusers'.

`ConfigMixin` of diffusers is no base of theirs: to import it takes seconds.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Self

from ddim_core.common.foreign import Config
from ddim_core.common.late import late

if TYPE_CHECKING:
    from diffusers import configuration_utils
else:
    configuration_utils = late("diffusers.configuration_utils")


class Configured:
    """A scheduler that keeps, frozen, what it was made with, and is made of that again."""

    config: Any

    def _keep(self, **entries: Any) -> None:
        self.config = configuration_utils.FrozenDict(entries)

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Makes one of a configuration; entries that it has not are left."""
        known = inspect.signature(cls).parameters
        return cls(**{name: value for name, value in config.items() if name in known})
