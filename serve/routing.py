"""Routes that say what they do not understand: a parameter or a field that is not theirs, a body of another kind.

FastAPI leaves out a parameter it does not know, so that a filter with a typing error filters nothing. Here it is refused
with the name that is near, or with how pages are asked where they are counted; and so is a field of the body. Every router
of JSON is made of these routes; the page's are not.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from inspect import isclass
from typing import Any, get_args

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel

from cluster.errors import Rejected

SIMILAR_MIN = 0.68  # as difflib counts it: "duration" is 0.696 of duration_min_ms, but "page" 0.667 of image
COUNTED = frozenset(("offset", "page", "skip", "start"))  # how other interfaces ask for a further page
BY_CURSOR = "pages are asked by cursor: give it next_cursor of the answer before, which carries what was asked; "
FIELDS_SHOWN_MAX = 20  # of the fields of a body that are wrong
NAME_CHARS_MAX = 100  # of an unknown name that are looked at
SEQUENCES = ("list", "tuple")


class Route(APIRoute):
    """A route that refuses parameters it does not know and bodies that are not announced as JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle, known = super().get_route_handler(), parameters(self)
        has_body = self.body_field is not None
        fields = dict(_fields(self.body_field.field_info.annotation)) if self.body_field else {}

        async def checked(request: Request) -> Response:
            if request.scope["query_string"]:
                check_names([name for name, _ in request.query_params.multi_items()], known)
            if has_body:
                check_kind(request)
            try:
                return await handle(request)
            except RequestValidationError as error:
                raise RequestValidationError(explained(error.errors(), fields), body=error.body) from None

        return checked


def parameters(route: APIRoute) -> dict[str, bool]:
    """The names of a route's query parameters, each with whether it may be given several times."""
    known: dict[str, bool] = {}
    for each in (field for dependant in _dependants(route.dependant) for field in dependant.query_params):
        kind = each.field_info.annotation
        if isclass(kind) and issubclass(kind, BaseModel):
            known |= {name: _is_sequence(field.annotation) for name, field in kind.model_fields.items()}
        else:
            known[each.alias] = _is_sequence(kind)
    return known


def _fields(kind: Any, within: str = "") -> Iterator[tuple[str, bool]]:
    """The fields of a body, dotted where one is in another, each with whether it is a sequence."""
    if not (isclass(kind) and issubclass(kind, BaseModel)):
        return
    for name, field in kind.model_fields.items():
        yield within + name, _is_sequence(field.annotation)
        for inner in (field.annotation, *get_args(field.annotation)):
            yield from _fields(inner, f"{within}{name}.")


def explained(errors: Sequence[Any], known: Mapping[str, bool]) -> list[dict[str, Any]]:
    """What is wrong with a body; of a field that is unknown, what it was likely meant to be, and which are known there.

    Only of as many as are shown: a body may have thousands.
    """
    found = list(errors)
    for number, each in enumerate(errors[:FIELDS_SHOWN_MAX]):
        if each["type"] == "extra_forbidden" and each["loc"][0] == "body":
            within = "".join(f"{part}." for part in each["loc"][1:-1])
            here = sorted(name for name in known if name.startswith(within) and "." not in name[len(within) :])
            hint = _meant(str(each["loc"][-1]), known)
            found[number] = {**each, "msg": f"is unknown; {hint}known: {', '.join(here)}"}
    return found


def _dependants(dependant: Dependant) -> Iterator[Dependant]:
    """What a route depends on, itself first."""
    yield dependant
    for each in dependant.dependencies:
        yield from _dependants(each)


def check_names(given: Sequence[str], known: Mapping[str, bool]) -> None:
    """Refuse parameters that are unknown, and values that are given twice where there is one.

    Raises:
        Rejected: 422, with the nearest name that is known, or how a further page is asked.
    """
    for name in given:
        if name not in known:
            hint = _meant(name, known)
            hint += f"known: {', '.join(sorted(known))}" if known else "there are none here"
            raise Rejected(f"the parameter {name[:NAME_CHARS_MAX]!r} is unknown", 422, "unknown-parameter", hint)
        if not known[name] and given.count(name) > 1:
            raise Rejected(f"{name} is given {given.count(name)} times", status=422, code="repeated-parameter")


def _meant(name: str, known: Mapping[str, bool]) -> str:
    """What an unknown parameter or field was likely meant to be; nothing where that is anyone's guess."""
    if name.lower() in COUNTED and "cursor" in known:
        return BY_CURSOR
    last = name.rpartition(".")[2][:NAME_CHARS_MAX]  # `filters.tags`, as the body of a POST nests it
    near = difflib.get_close_matches(last, [each.rpartition(".")[2] for each in known], 1, SIMILAR_MIN)
    whole = next((each for each in known if near and each.rpartition(".")[2] == near[0]), "")
    return f"did you mean {whole}? " if whole else ""


def check_kind(request: Request) -> None:
    """Refuse a body that is not announced as JSON.

    Raises:
        Rejected: 415.
    """
    headers = request.headers
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return  # there is none, which is said where it is missed
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        said = f"the body is announced as {kind[:100]!r}" if kind else "the body's kind is not announced"
        raise Rejected(said, status=415, code="unsupported-media-type", hint="send Content-Type: application/json")


def _is_sequence(annotation: Any) -> bool:
    return getattr(getattr(annotation, "__origin__", None), "__name__", "") in SEQUENCES
