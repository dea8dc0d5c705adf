"""A sampler's name as people write it, `NAME[/SIGMAS][?key=value&...]`, and its one spelling."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from ddim_core.common.checks import nearest
from ddim_core.samplers.catalogue import (
    FLAGS,
    NAMES,
    OWN,
    REFUSED,
    RULES,
    SAMPLERS,
    SIGMA_HAT,
    class_entries,
    named_for,
)
from ddim_core.samplers.values import require_value, require_word

Value = str | int | float | bool | None | tuple["Value", ...]
LISTS = ("timesteps", "sigmas")
HOW = "a sampler is NAME[/SIGMAS][?key=value&...]"


@dataclass(frozen=True)
class SamplerName:
    """One sampler of diffusers, with what it is set to.

    Attributes:
        name: A name of the catalogue, `own`, `sigma-hat`, or a scheduler class of diffusers.
        sigmas: The rule that spaces its noise levels: one of `RULES`, or None (the scheduler's).
        options: Entries of the scheduler's configuration, sorted by name.
        timesteps: A list of one's own, falling: where the network is asked. Empty: none is given.
        own_sigmas: The same as noise levels, falling, without the 0 at the end.
    """

    name: str
    sigmas: str | None = None
    options: tuple[tuple[str, Value], ...] = ()
    timesteps: tuple[float, ...] = ()
    own_sigmas: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for field in ("timesteps", "own_sigmas"):  # in the one form, whoever made them
            object.__setattr__(self, field, tuple(map(_whole, getattr(self, field))))

    @property
    def text(self) -> str:
        """The one spelling: equal settings have one text, and `parse_sampler` reads it back."""
        entries = [*self.options]
        entries += [("timesteps", self.timesteps)] if self.timesteps else []
        entries += [("sigmas", self.own_sigmas)] if self.own_sigmas else []
        said = "&".join(f"{key}={_written(value)}" for key, value in sorted(entries))
        rule = f"/{self.sigmas}" if self.sigmas else ""
        return f"{self.name}{rule}?{said}" if said else f"{self.name}{rule}"

    @property
    def n_listed(self) -> int | None:
        """How many steps its list of timesteps or sigmas makes; None where it gives no list."""
        return len(self.timesteps or self.own_sigmas) or None


def parse_sampler(text: str) -> SamplerName:
    """Reads a sampler's name.

    Values are JSON scalars or lists of them; a bare word is text. What depends on the checkpoint
    (whether the sampler fits it, the keys of `own`) is checked by `scheduler_for`.

    Args:
        text: Such as `dpmpp_2m/karras?solver_order=3&timesteps=[999,850]`.

    Raises:
        ValueError: In one sentence, for the first thing that is wrong: an unknown name, rule or
            key, a rule that the scheduler has no flag for, a key that the name fixes or that
            belongs to the trained network, or a list that does not fall.
    """
    head, asked, tail = text.strip().partition("?")
    name, slash, rule = head.partition("/")
    if asked and not tail:
        raise ValueError(f"sampler {text!r} ends after its question mark; {HOW}")
    if slash and rule not in RULES:
        raise ValueError(
            f"sampler {text!r} has the rule of sigmas {rule!r}{nearest(rule, RULES)}; "
            f"the rules are {', '.join(RULES)}"
        )
    kind = _class_of(name)
    options = dict(_options(text, tail))
    timesteps, sigmas = (_falling(key, options.pop(key)) if key in options else () for key in LISTS)
    if timesteps and sigmas:
        raise ValueError(f"sampler {text!r} lists timesteps and sigmas; give one of them")
    if (timesteps or sigmas) and rule:
        raise ValueError(f"sampler {text!r} has a list of its own and the rule {rule!r}; give one")
    if kind is not None:
        require_rule(name, kind, rule)
        for key, value in options.items():
            require_key(name, kind, key, value)
    if kind is not None and name not in NAMES:  # a class: by its short name where it has one
        name, options = named_for(kind, options)
    return SamplerName(name, rule or None, tuple(sorted(options.items())), timesteps, sigmas)


def split_samplers(text: str) -> list[str]:
    """Splits a list of samplers or names at its commas; those within a list's brackets, and those
    behind a backslash (`\\,`), are no borders."""
    parts = (part.strip().replace("\\,", ",") for part in _split(text, ","))
    return [part for part in parts if part]


def join_samplers(parts: Iterable[str]) -> str:
    """Returns the one text that `split_samplers` splits into these parts."""
    return ",".join(p if len(_split(p, ",")) == 1 else p.replace(",", "\\,") for p in parts)


def require_key(name: str, kind: str, key: str, value: Value) -> None:
    """Makes sure that an entry of a scheduler's configuration may be set by a sampler's name.

    Args:
        name: The sampler's name.
        kind: Its class in diffusers.
        key: The entry.
        value: What it is set to.

    Raises:
        ValueError: If there is no such entry, the name fixes it, it is the checkpoint's, or its
            value is of another type than the scheduler's own.
    """
    sampler, known = SAMPLERS.get(name), class_entries(kind)
    fixed = dict(sampler.fixed) if sampler else {}
    if key in fixed:
        raise ValueError(f"{name} is {kind} with {key} = {fixed[key]!r}; leave {key} out")
    if key in FLAGS and key in known:
        raise ValueError(f"{key} is written as a rule: {name}/{FLAGS[key]}, or /linear for none")
    if key in TRAINED:
        raise ValueError(
            f"{key} belongs to the trained network, which a sampler cannot change; leave it out"
        )
    if key not in known or key in OBJECTS:
        offered = [entry for entry in known if entry not in {*fixed, *TRAINED, *FLAGS, *OBJECTS}]
        raise ValueError(
            f"{name} has no key {key!r}{nearest(key, offered)}; "
            f"its keys are {', '.join(offered) or 'none'}"
        )
    require_value(key, value, _written(value), known[key])
    require_word(kind, key, value)


TRAINED = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas",
    "prediction_type", "rescale_betas_zero_snr", "sigma_data", "use_flow_sigmas", "snr_shift_scale",
    "invert_sigmas", "timestep_type", "beta_min", "beta_max", "levels",
    "path",
)  # fmt: skip
"""Entries that say what the network was trained on: another value is a wrongly wired sampler."""
OBJECTS = ("tau_func", "solver_p")  # entries that are functions, which no text can give


def _class_of(name: str) -> str | None:
    """The class behind a name; None for `own` and `sigma-hat`, which have none of their own."""
    if name in (OWN, SIGMA_HAT):
        return None
    if name in SAMPLERS:
        return SAMPLERS[name].kind
    if name.endswith("Scheduler"):
        if name in REFUSED:
            raise ValueError(f"{name} cannot be used: {REFUSED[name]}")
        class_entries(name)  # refuses what diffusers does not have
        return name
    raise ValueError(
        f"there is no sampler {name!r}{nearest(name, NAMES)}; the names are {', '.join(NAMES)}, or "
        "a scheduler's class name in diffusers"
    )


def require_rule(name: str, kind: str, rule: str) -> None:
    """Makes sure that a scheduler has a flag for a rule of sigmas ("" is none).

    Raises:
        ValueError: If it has none.
    """
    if not rule:
        return
    flags = {FLAGS[entry]: entry for entry in class_entries(kind) if entry in FLAGS}
    if not flags or (rule not in flags and rule != "linear"):
        can = f"it knows {', '.join([*flags, 'linear'])}" if flags else "it knows none"
        raise ValueError(f"{name} has no rule {rule!r} of sigmas; {can}")
    fixed = dict(SAMPLERS[name].fixed) if name in SAMPLERS else {}
    if any(entry in fixed for entry in flags.values()):
        raise ValueError(f"{name} fixes its rule of sigmas; leave {rule!r} out")


def _options(text: str, tail: str) -> Iterator[tuple[str, Value]]:
    seen = set()
    for part in _split(tail, "&") if tail else []:
        key, equals, value = part.partition("=")
        if not key.isidentifier() or not equals or not value:
            raise ValueError(f"sampler {text!r} has {part!r} where key=value should stand; {HOW}")
        if key in seen:
            raise ValueError(f"sampler {text!r} sets {key} twice; set it once")
        seen.add(key)
        yield key, _read(key, value)


def _split(text: str, border: str) -> list[str]:
    """Parts between borders that stand neither in brackets nor in quotes."""
    parts, depth, quoted = [""], 0, False
    for i, sign in enumerate(text):
        if sign == '"' and (i == 0 or text[i - 1] != "\\"):
            quoted = not quoted
        depth += 0 if quoted else (sign in "[{") - (sign in "]}")
        if sign == border and depth <= 0 and not quoted and text[i - 1 : i] != "\\":
            parts.append("")
        else:
            parts[-1] += sign
    return parts


def _read(key: str, value: str) -> Value:
    try:
        read = json.loads(value)
    except RecursionError:
        raise ValueError(f"{key} begins with {value[:20]}; it is nested too deeply") from None
    except ValueError:
        if value[0] in '[{"':
            raise ValueError(f"{key} is {value}; it must be a JSON value or a bare word") from None
        return value
    return _settled(key, read)


def _settled(key: str, value: object) -> Value:
    """One form for what is equal: whole numbers are integers, lists are tuples."""
    if isinstance(value, list):
        return tuple(_settled(key, part) for part in value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{key} is {value}; it must be a finite number")
        return _whole(value)
    if value is None or isinstance(value, (str, bool, int)):
        return value
    raise ValueError(f"{key} is {value}; it must be a number, true, false, null, text or a list")


def _whole(value: float) -> float:
    """A number as it is written: a whole one without a point."""
    return int(value) if float(value).is_integer() else value


def _falling(key: str, value: Value) -> tuple[float, ...]:
    """A list of one's own, checked; a 0 at the end of sigmas is where every sampler ends anyway."""
    numbers = value if isinstance(value, tuple) else ()
    kept = [v for v in numbers if isinstance(v, (int, float)) and not isinstance(v, bool)]
    if not kept or len(kept) != len(numbers):
        raise ValueError(f"{key} is {_written(value)}; it must be a list of numbers")
    kept = kept[:-1] if key == "sigmas" and len(kept) > 1 and kept[-1] == 0 else kept
    lowest = "0 or more" if key == "timesteps" else "above 0"
    if kept[-1] < 0 or (key == "sigmas" and kept[-1] == 0):
        raise ValueError(f"{key} end at {kept[-1]}; they must be {lowest}")
    for before, after in pairwise(kept):
        if after >= before:
            raise ValueError(f"{key} go from {before} to {after}; they must fall")
    return tuple(kept)


def _written(value: Value) -> str:
    if isinstance(value, str):
        plain = value and not any(sign in value for sign in '&=?,[]{}" ')
        try:
            json.loads(value)
        except ValueError:
            return value if plain else json.dumps(value)
        return json.dumps(value)
    return json.dumps(value, separators=(",", ":"))
