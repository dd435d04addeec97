"""Routes that refuse what they do not understand: an unknown parameter or field, a body that is not announced as JSON.

FastAPI ignores a parameter that it does not know, so that a filter with a typing error filters nothing. Here it is refused,
and so is an unknown field of the body; the hint is a known name that is similar, or how to ask for a page. All routers but that
of the web page use these routes.
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
from serve.http.problems import FIELDS_SHOWN_MAX

SIMILAR_MIN = 0.68  # of a name that is offered as a hint: difflib's ratio, 0 to 1; "page" is 0.667 of image
COUNTED = frozenset(("offset", "page", "skip", "start"))  # how other interfaces ask for a further page
BY_CURSOR = "pages are asked by cursor: give it next_cursor of the answer before, which carries what was asked; "
NAME_CHARS_MAX = 100  # of an unknown name that are looked at
SEQUENCES = ("list", "tuple")  # types of parameters that may be given several times


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
    """Map the names of a route's query parameters to whether they may be given several times."""
    known: dict[str, bool] = {}
    for parameter in (field for dependant in _dependants(route.dependant) for field in dependant.query_params):
        kind = parameter.field_info.annotation
        if isclass(kind) and issubclass(kind, BaseModel):
            known |= {name: _is_sequence(field.annotation) for name, field in kind.model_fields.items()}
        else:
            known[parameter.alias] = _is_sequence(kind)
    return known


def _fields(kind: Any, within: str = "") -> Iterator[tuple[str, bool]]:
    """Yield the name of each field of a body, and whether it is a sequence; names of nested fields are dotted."""
    if not (isclass(kind) and issubclass(kind, BaseModel)):
        return
    for name, field in kind.model_fields.items():
        yield within + name, _is_sequence(field.annotation)
        for inner in (field.annotation, *get_args(field.annotation)):
            yield from _fields(inner, f"{within}{name}.")


def explained(errors: Sequence[Any], known: Mapping[str, bool]) -> list[dict[str, Any]]:
    """Return the errors of a body; for an unknown field, add the names known at its place and a similar one, if any.

    This is done for the first `FIELDS_SHOWN_MAX` errors only, since no others are shown: a body may have thousands.
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
    """Yield a route's own dependant, then those of its dependencies at any depth."""
    yield dependant
    for each in dependant.dependencies:
        yield from _dependants(each)


def check_names(names: Sequence[str], known: Mapping[str, bool]) -> None:
    """Refuse unknown parameters, and parameters that are given twice though they take one value.

    `known` maps each name to whether the parameter may be given several times.

    Raises:
        Rejected: 422. For an unknown parameter the hint has the known names, and one that is similar or how to ask for
            a page.
    """
    for name in names:
        if name not in known:
            hint = _meant(name, known)
            hint += f"known: {', '.join(sorted(known))}" if known else "there are none here"
            raise Rejected(f"the parameter {name[:NAME_CHARS_MAX]!r} is unknown", 422, "unknown-parameter", hint)
        if not known[name] and names.count(name) > 1:
            raise Rejected(f"{name} is given {names.count(name)} times", status=422, code="repeated-parameter")


def _meant(name: str, known: Mapping[str, bool]) -> str:
    """Return a hint at the known name that an unknown parameter or field resembles; empty where it resembles none."""
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
        return  # a body that is missing is refused where it is parsed
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        detail = f"the body is announced as {kind[:100]!r}" if kind else "the body's kind is not announced"
        raise Rejected(detail, status=415, code="unsupported-media-type", hint="send Content-Type: application/json")


def _is_sequence(annotation: Any) -> bool:
    return getattr(getattr(annotation, "__origin__", None), "__name__", "") in SEQUENCES
