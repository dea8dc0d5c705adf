"""One declaration of a flow's parameters: the fields of frozen records, made flat.

A field says its type, its bounds, its meaning and its default in one place:

    n_images: Annotated[int, Field(ge=2, description="Images per cell. ...")] = 2048

and from it follow the flow's signature with its form in Prefect (`flat`), the command's option
(`flows.cli.app.options`), the line of `docs/parameters.md`, and the check of a given value
(`build`).
Records may hold records: the groups of a form and of `--help`. A group's defaults may be changed
where it is used, by an instance of it: `images: Images = Images(n_images=1000)`.

Prefect wants the parameters flat: `-p steps='[10,20]'` would else replace a whole group.
"""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from functools import cache
from typing import Annotated, Any, Generic, TypeVar, get_args, get_origin, get_type_hints

from pydantic.fields import FieldInfo

from ddim_core.common.checks import nearest
from ddim_core.common.declared import checked
from ddim_core.common.redaction import redacted
from ddim_core.samplers.name import join_samplers

Record = TypeVar("Record")
Result = TypeVar("Result")
Given = dict[str, Any]
"""Parameters of a flow by name, as somebody gives them: all of any record, or some."""


@dataclass(frozen=True)
class Without:
    """Beside a group: these of its fields are no parameters here."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Option:
    """Beside a description: how a command's option departs from the parameter's name and type.

    Attributes:
        name: The option, with its dashes; several with spaces between. Without dashes it is an
            argument, given by its place.
        repeated: A list is given by repeating the option, not with commas.
    """

    name: str
    repeated: bool = False


@dataclass(frozen=True)
class Elsewhere:
    """Beside a group that is `Asked`: where its usual values are others, such as on another base.

    Attributes:
        where: For people: `embedded base`.
        usual: The record there.
    """

    where: str
    usual: Any


@dataclass(frozen=True)
class Asked(Generic[Record]):
    """What was given of a record whose defaults depend on something else: a group whose parameters
    are empty where nothing is given."""

    values: Mapping[str, Any]

    def on(self, usual: Record) -> Record:
        """Returns the usual record with what was given in its place."""
        return replace(usual, **self.values)  # type: ignore[type-var]


@dataclass(frozen=True)
class Parameter:
    """A parameter of a flow.

    Attributes:
        name: Of the field, the flow's parameter and, with dashes, the option.
        kind: Its annotation, `Annotated[type, Field(description=...)]`.
        default: What it is where nothing is given.
        usual: What an empty value stands for, where that is not said by the description.
        group: The first words of its record's docstring, to a full stop or a semicolon.
    """

    name: str
    kind: Any
    default: Any
    group: str
    usual: str = ""

    @property
    def plain(self) -> Any:
        """The type without its bounds and description."""
        return get_args(self.kind)[0]

    @property
    def description(self) -> str:
        """What it means; the first sentence can stand alone."""
        marks = (m for m in get_args(self.kind)[1:] if isinstance(m, FieldInfo))
        return next(str(m.description) for m in marks if m.description)

    def mark(self, kind: type[Result]) -> Result | None:
        """Returns what of a type stands beside the description, if anything does."""
        return next((m for m in get_args(self.kind)[1:] if isinstance(m, kind)), None)


def parameters(record: Any) -> tuple[Parameter, ...]:
    """Returns the parameters of a record type and of the records in it, in order.

    What two groups declare alike (a seed, by one alias) is one parameter, which both are given.

    Raises:
        TypeError: If a field has no description, or one name means two things.
    """
    return _found(record)


@cache
def _found(record: Any) -> tuple[Parameter, ...]:
    found: dict[str, Parameter] = {}
    for parameter in _parameters(record, None):
        known = found.setdefault(parameter.name, parameter)
        if known.description != parameter.description:
            raise TypeError(f"{record.__name__} has {parameter.name} in two groups, not alike")
    return tuple(found.values())


def build(record: type[Record], given: Mapping[str, Any]) -> Record:
    """Makes a record of flat values by name; what is not given has its default.

    Raises:
        ValueError: For the first value that cannot be, with the value and what would be right; of
            a name that is no parameter, with the nearest that is.
    """
    known = {parameter.name: parameter for parameter in parameters(record)}
    for name in given:
        if name not in known:
            raise ValueError(
                f"there is no parameter {name}{nearest(name, known)}; there are {', '.join(known)}"
            )
    values = {name: parameter.default for name, parameter in known.items()}
    return _built(record, values | {k: checked(k, known[k].kind, v) for k, v in given.items()})


def values(record: Any) -> Given:
    """Returns the flat values of a record by name: what `build` would make it of again."""
    return dict(_values(record))


def command_line(command: str, record: Any, without: Collection[str] = ()) -> str:
    """Returns the command that asks for a record: `ddim COMMAND`, with what differs from the usual.

    Secrets in it are hidden. What an empty value would be settled to is left empty.

    Args:
        command: Of `ddim`, with what tells its record from others, such as `grid --until-decided`.
        record: What was asked for.
        without: Names of parameters that decide nothing.
    """
    words, given = ["ddim", command], values(record)
    known = [p for p in parameters(type(record)) if p.name not in without]
    asked = {p.name: v for p in known if (v := given.get(p.name, p.default)) != p.default}
    for p in known:
        if p.name not in asked or (p.default in (None, "") and _follows(record, asked, p.name)):
            asked.pop(p.name, None)
            continue
        value, mark = asked[p.name], p.mark(Option)
        name = mark.name.split()[0] if mark else f"--{p.name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(name if value else f"--no-{name.removeprefix('--')}")
            continue
        told = value if mark and mark.repeated else [value]
        words += [
            " ".join([*([name] if name.startswith("-") else []), _quoted(one)]) for one in told
        ]
    return " ".join(words)


def _follows(record: Any, asked: Given, name: str) -> bool:
    """Whether what else is asked for settles a parameter to the same value."""
    others = {other: value for other, value in asked.items() if other != name}
    try:
        return bool(values(build(type(record), others)).get(name) == asked[name])
    except ValueError:  # of a record that cannot do without it
        return False


def _quoted(value: Any) -> str:
    """For a shell; secrets are hidden before, since quotes would take one apart that has some."""
    return shlex.quote(redacted(_in_full(value)))


def _in_full(value: Any) -> str:
    """As `in_words`, with all digits."""
    if isinstance(value, (list, tuple)):
        return join_samplers(map(_in_full, value))
    return repr(value).removesuffix(".0") if isinstance(value, float) else in_words(value)


def flat(function: Callable[[Record], Result]) -> Callable[..., Result]:
    """Makes a function of one record a function of its flat parameters, with their `Args:`.

    Prefect makes the form from the signature, and takes the descriptions from the docstring. It
    is told not to validate: the record does, in our words.
    """
    (record,) = (t for n, t in get_type_hints(function).items() if n != "return")
    found = parameters(record)
    keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature(
        [inspect.Parameter(p.name, keyword, annotation=p.kind, default=p.default) for p in found]
    )

    def call(*args: Any, **kwargs: Any) -> Result:
        return function(build(record, signature.bind(*args, **kwargs).arguments))

    for name in ("__module__", "__name__", "__qualname__"):
        setattr(call, name, getattr(function, name))
    call.__signature__ = signature  # type: ignore[attr-defined]
    call.__annotations__ = {p.name: p.kind for p in found}
    summary, _, more = inspect.cleandoc(function.__doc__ or "").partition("\n\n")
    args = "\n".join(f"    {p.name}: {p.description}" for p in found)
    call.__doc__ = f"{summary}\n\nArgs:\n{args}\n\n{more}"
    return call


def _values(record: Any) -> Iterator[tuple[str, Any]]:
    kinds = get_type_hints(type(record), include_extras=True)
    for field in fields(record):
        value, kind = getattr(record, field.name), kinds[field.name]
        if isinstance(value, Asked):
            yield from value.values.items()
        elif _group(kind):
            yield from ((n, v) for n, v in _values(value) if n not in _left_out(kind))
        else:
            yield field.name, value


def _parameters(record: type, changed: Any) -> Iterator[Parameter]:
    kinds = get_type_hints(record, include_extras=True)
    group = re.split(r"[.;\n]", record.__doc__ or "")[0]
    for field in fields(record):
        kind = kinds[field.name]
        default = getattr(changed, field.name) if changed is not None else _default(field)
        if of := _asked(kind):
            for p in _parameters(of, None):
                if p.name not in _left_out(kind):
                    yield replace(p, kind=_or_none(p.kind), default=None, usual=_usual(p, kind))
        elif group_of := _group(kind):
            yield from (p for p in _parameters(group_of, default) if p.name not in _left_out(kind))
        elif get_origin(kind) is Annotated:
            yield Parameter(field.name, kind, default, group)
        else:
            raise TypeError(f"{record.__name__}.{field.name} has no description")


def _group(kind: Any) -> type | None:
    """The record that a field holds, if it holds one."""
    plain = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    return plain if isinstance(plain, type) and is_dataclass(plain) else None


def _asked(kind: Any) -> type | None:
    """The record in `Asked[record]`, if it is that."""
    plain = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    return get_args(plain)[0] if get_origin(plain) is Asked else None


def _marks(kind: Any) -> tuple[Any, ...]:
    return get_args(kind)[1:] if get_origin(kind) is Annotated else ()


def _left_out(kind: Any) -> tuple[str, ...]:
    return next((mark.names for mark in _marks(kind) if isinstance(mark, Without)), ())


def _usual(parameter: Parameter, kind: Any) -> str:
    """`4; embedded base 8`: what an empty value of a group that is `Asked` stands for."""
    others = [mark for mark in _marks(kind) if isinstance(mark, Elsewhere)]
    values = {"": parameter.default} | {o.where: getattr(o.usual, parameter.name) for o in others}
    told = [
        f"{where} {in_words(value)}".strip()
        for where, value in values.items()
        if not where or value != parameter.default
    ]
    return "; ".join(text for text in told if text)


def in_words(value: Any) -> str:
    """A default as people write it; nothing of an empty one."""
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (list, tuple)):
        return ",".join(in_words(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _or_none(kind: Any) -> Any:
    plain, *marks = get_args(kind)
    return Annotated[(plain | None, *marks)]


def _default(field: Any) -> Any:
    if field.default is not MISSING:
        return field.default
    return None if field.default_factory is MISSING else field.default_factory()


def _built(record: type[Record], values: Mapping[str, Any], changed: Any = None) -> Record:
    kinds = get_type_hints(record, include_extras=True)

    def made(field: Any) -> Any:
        kind = kinds[field.name]
        default = getattr(changed, field.name) if changed is not None else _default(field)
        if of := _asked(kind):
            names = {p.name for p in _parameters(of, None)} - set(_left_out(kind))
            return Asked({n: values[n] for n in names if values[n] is not None})
        if group := _group(kind):
            without = {n: v for n, v in values.items() if n not in _left_out(kind)}
            return _built(group, without, default)
        return values.get(field.name, default)

    return record(**{f.name: made(f) for f in fields(record)})  # type: ignore[arg-type]
