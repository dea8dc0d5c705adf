"""What other libraries read and are called with, as they have it: names and values of any kind."""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]
"""Entries of a configuration by name: a scheduler_config.json or model_index.json of diffusers."""

Content = dict[str, Any]
"""What a file of someone else holds, by name: numbers, texts, arrays, further such contents."""

Keywords = dict[str, Any]
"""Arguments of a call into another library by name, such as a pipeline's or `set_timesteps`."""

Json = dict[str, Any]
"""An object of JSON that others read, such as what a page's scripts are given."""
