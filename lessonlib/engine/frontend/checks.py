"""Types that check what they are given, by pydantic, and errors of one line that name field, value and remedy.

A remedy is a text in an annotation: `Annotated[Whole, Field(ge=1), "give at least 1"]`.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, TypeVar, cast, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationError, validate_call

from lessonlib.errors import CourseError

STRICT = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)
LONGEST_VALUE = 60  # characters of a value in an error
Made = TypeVar("Made", bound=type)
Call = TypeVar("Call", bound=Callable[..., Any])


def plain(value: Any) -> Any:
    """A NumPy or torch scalar as Python's number; anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def listed(value: Any) -> Any:
    """None as an empty list, a text or number as a list of one, other collections as lists of Python's numbers."""
    if value is None:
        return []
    value = plain(value)
    if isinstance(value, str | int):
        return [value]
    if hasattr(value, "tolist"):  # an array or a tensor
        return value.tolist()
    if isinstance(value, Iterable) and not isinstance(value, Mapping | bytes):
        return [plain(each) for each in value]
    return value


def _encodable(text: str) -> str:
    text.encode()  # a lone surrogate is half a character: no tokenizer takes it
    return text


Whole = Annotated[int, BeforeValidator(plain), Field(ge=-(2**63), lt=2**64)]
Number = Annotated[float, BeforeValidator(plain), Field(allow_inf_nan=False)]
YesOrNo = Annotated[bool, BeforeValidator(plain), "give True or False"]
Text = Annotated[str, AfterValidator(_encodable)]
SomeText = Annotated[Text, Field(min_length=1)]


def is_one_of(value: Any, known: Iterable[Any]) -> bool:
    """Whether it is one of these values, of the same type: True is not 1, and an array is none of them."""
    return any(value is each or (type(value) is type(each) and value == each) for each in known)


def show(value: Any) -> str:
    """A value in one short line."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a number of too many digits, or an object that cannot be shown
        text = f"of type {type(value).__name__}"
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 2]} …"


def unknown(owner: str, name: Any, known: Iterable[str]) -> CourseError:
    """The error for a name that is not there, with the one that may have been meant."""
    alike = difflib.get_close_matches(str(name), sorted(known), 1)
    remedy = f"did you mean {alike[0]!r}?" if alike else "leave it out"
    return CourseError(f"{owner} has no {show(name)}: {remedy}")


def in_one_line(call: Callable[..., Any], owner: str, hints: Mapping[str, Any]) -> Callable[..., Any]:
    """`call`, whose first parameter is self, with pydantic's errors as one `CourseError`.

    Args:
        owner: what an error calls it.
        hints: annotation of each parameter, in order.
    """

    @functools.wraps(call)
    def checked(*args: Any, **options: Any) -> Any:
        try:
            return call(*args, **options)
        except ValidationError as error:
            raise _first_of(error, owner, hints) from None

    return checked


def checked_class(made: Made) -> Made:
    """A pydantic dataclass whose constructor and assignments fail in one line."""
    hints = get_type_hints(made, include_extras=True)
    for name in ("__init__", "__setattr__"):
        setattr(made, name, in_one_line(getattr(made, name), made.__name__, hints))
    plain_hints = get_type_hints(made)
    signature = inspect.signature(made)
    made.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[each.replace(annotation=plain_hints[each.name]) for each in signature.parameters.values()]
    )
    return made


def checked_call(function: Call) -> Call:
    """A method whose arguments are checked by their annotations, and fail in one line."""
    hints = {
        name: hint for name, hint in get_type_hints(function, include_extras=True).items() if name != "return"
    }
    owner = function.__qualname__.removesuffix(".__init__")
    # The parameter `self` counts among those by position.
    checked = in_one_line(validate_call(config=STRICT)(function), owner, {"self": Any, **hints})
    return cast(Call, checked)


def _first_of(error: ValidationError, owner: str, hints: Mapping[str, Any]) -> CourseError:
    found = error.errors(include_url=False)[0]
    if not found["loc"]:  # what the class itself found
        return CourseError(str(found["ctx"]["error"]))
    first, *inner = found["loc"]
    if found["type"] == "unexpected_positional_argument":
        return CourseError(f"{owner} got {show(found['input'])} by position: give it by name")
    name = list(hints)[first] if isinstance(first, int) else first
    if name not in hints:
        return unknown(owner, name, hints)
    inside = "".join(f"[{part!r}]" for part in inner if isinstance(part, int))
    return CourseError(f"{name}{inside} {show(found['input'])}: {remedy(hints[name]) or _kinds(hints[name])}")


def _kinds(hint: Any) -> str:
    kinds = [getattr(kind, "__name__", str(kind)) for kind in get_args(hint) or (hint,)]
    return f"give one of type {' or '.join(kinds)}"


def remedy(hint: Any) -> str:
    """The text in an annotation, of several the first; empty where there is none."""
    if get_origin(hint) is Annotated:
        for part in get_args(hint)[1:]:
            if isinstance(part, str):
                return part
    for part in get_args(hint):
        if found := remedy(part):
            return found
    return ""
