"""The names that callers are given, with their keys: nobody's may pass for another's.

Who ordered and who approved is read by name, so a new one is under the rules of creators' handles, and is refused where it
differs from one that is there in what people do not see: case, invisible characters, letters and digits that look alike.
Names of before stay, and may be named as they are.
"""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from cluster import characters
from cluster.errors import Rejected
from pipelines import handles

NAME_CHARS_MAX = 200
# After Unicode's confusables.txt, of the alphabets that names are written with most: what is read as a Latin letter.
READ_AS = (
    (
        "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u0501\u04bb\u04cf\u051b\u051d",
        "aeopcyxijsdhlqw",
    ),  # Cyrillic
    (
        "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0423\u0425\u0406\u0408\u0405\u04c0",
        "ABEKMHOPCTYXIJSl",
    ),  # Cyrillic
    ("\u03b1\u03b9\u03ba\u03bd\u03bf\u03c1\u03c4\u03c5\u03c7", "aikvoptux"),  # Greek
    ("\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7", "ABEZHIKMNOPTYX"),  # Greek
    ("\u0578\u057d\u0585\u0570\u0581\u0566", "nuohgq"),  # Armenian
    ("\u013101|", "ioll"),  # Latin, and digits
)
UNSEEN = "\u00ad\u034f\u061c\u200b\u200c\u200d\u200e\u200f\u2060\u2061\u2062\u2063\u2064\u3164\ufeff"
# What `translate` brings a name to; what has no counterpart at the end is left out.
FROM, TO = "".join(letters for letters, _ in READ_AS) + UNSEEN, "".join(latin for _, latin in READ_AS)
SEEN = "lower(translate(normalize({}, NFKC), %(from)s, %(to)s))"
ONE_AT_A_TIME = 0x6E616D6573  # of transactions that give a new name


def named(connection: Connection[Any], name: str) -> str:
    """The name of a caller as it is kept. Two new ones that are alike wait for each other until the transaction's end.

    Raises:
        Rejected: 422, it shows nothing, is too long, is more than a line of text, or is new and holds what is not seen or
            could be another letter; 409, it is new and looks like another caller's.
    """
    try:
        kept = characters.line(name)
    except ValueError as error:
        raise Rejected(f"the name {error}", status=422, code="bad-name") from error
    if not 1 <= len(kept) <= NAME_CHARS_MAX:
        raise Rejected(f"a name has 1 to {NAME_CHARS_MAX} characters", status=422, code="bad-name")
    if connection.execute("SELECT FROM app.principals WHERE name = %s", (kept,)).fetchone() is None:
        _check_new(connection, kept)
    return kept


def _check_new(connection: Connection[Any], name: str) -> None:
    if said := handles.fault(name, "the name"):
        raise Rejected(said, status=422, code="bad-name", hint="write it with the letters of one alphabet")
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (ONE_AT_A_TIME,))
    # Reads all names, which administrators alone make more of.
    other = connection.execute(
        f"SELECT name FROM app.principals WHERE {SEEN.format('name')} = {SEEN.format('%(name)s')} AND name <> %(name)s"
        " ORDER BY id LIMIT 1",
        {"name": name, "from": FROM, "to": TO},
    ).fetchone()
    if other is not None:
        detail = f"the name {name!a} looks like {other[0]!a}, who is another caller"
        raise Rejected(detail, status=409, code="principal-taken", hint="take another name, or that one as it is")
