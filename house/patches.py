"""What is not mechanical: edits by hand, each of an exact text. One that does not fit says so and leaves its file alone."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).resolve().parent


class Editor:
    def __init__(self, root: Path, notes: list[str]) -> None:
        self.root, self.notes = root, notes

    def edit(self, file: str, *pairs: tuple[str, str], every: bool = False) -> None:
        """Put each new text in the place of the old one, which stands there exactly once (`every`: at least once)."""
        path = self.root / file
        if not path.exists():
            self.notes.append(f"patch: {file} is not there")
            return
        text = path.read_text(encoding="utf-8")
        for old, new in pairs:
            count = text.count(old)
            if count != 1 and not (every and count):
                self.notes.append(f"patch by hand: {file}: this stands there {count} times:\n    {old!r}\n    → {new!r}")
                continue
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")

    def new(self, file: str, text: str) -> None:
        path = self.root / file
        if path.exists():
            self.notes.append(f"patch: {file} is there already")
            return
        path.write_text(text.lstrip("\n"), encoding="utf-8")


# ── Before: on the tree as it is, before names move ────────────────────────────────────────────────────────────────────


def before(root: Path, notes: list[str]) -> None:
    editor = Editor(root, notes)
    # The ground no longer imports benchmarks: `pixr bench` is an entry point like the other packages' commands.
    editor.edit("cluster/cli.py", (", stack.config, stack.bench)", ", stack.config)"))
    editor.edit(
        "pyproject.toml",
        ('demo = "serve.demo:demo"\n', 'demo = "serve.demo:demo"\nbench = "benchmarks.command:bench"\n'),
    )


# ── Between: names have moved, modules stand where they stood. The bag `services` is taken out of the rooms ───────────────────

CONTEXT = '''
"""What a search works with: the database, the encoder, what is kept, gates and keys. Made once a replica; decides nothing.

The routes' `Services` is one of these with more in it. Knows no request.
"""

from __future__ import annotations

from dataclasses import dataclass

from cluster.resilience import Breaker
from cluster.settings import Settings
from cluster.storage import Storage
from cluster.tasks import Tasks
from ledger.recorder import Recorder
from ledger.settings import Economics
from serve.encoder import Encoding
from serve.feed import Feed
from serve.gates import Gate
from serve.generation import Generation
from serve.query import Remembered
from serve.readers import Readers
from serve.recall import Recall
from serve.repeats import Repeats
from serve.results import Results
from serve.settings import SearchSettings
from serve.threads import Threads


@dataclass(frozen=True)
class SearchContext:
    """One replica's settings and connections, as far as searches use them."""

    settings: Settings
    search: SearchSettings
    economics: Economics
    readers: Readers
    storage: Storage
    encoding: Encoding
    recorder: Recorder
    generation: Generation
    results: Results
    feed: Feed
    gate: Gate  # of searches
    recall: Recall
    remembered: Remembered
    repeats: Repeats  # what an Idempotency-Key stands for
    cursor_key: bytes  # that signs cursors
    patience: Breaker  # with searches at full recall
    objects: Threads  # for calls to the object store
    tasks: Tasks  # that belong to no part alone
'''

OF_CONTEXT = (  # fields that `Services` has from there
    "settings", "search", "economics", "readers", "storage", "encoding", "recorder", "generation", "results", "feed", "gate",
    "recall", "remembered", "repeats", "cursor_key", "patience", "objects", "tasks",
)  # fmt: skip


def between(root: Path, notes: list[str]) -> None:
    editor = Editor(root, notes)
    _context(editor)
    _keys(editor)
    _links(editor)
    _counted(editor)
    # `calibrate` asks `cut` at its end, and `cut` asks `questions`: no circle, so nothing is imported late.
    late = "    from pipelines.training import cut  # which asks what is asked here\n\n"
    editor.edit("pipelines/training/calibrate.py", (late, ""))
    editor.edit(
        "pipelines/training/calibrate.py",
        ("from pipelines.samples import Sample\n", "from pipelines.samples import Sample\nfrom pipelines.training import cut\n"),
    )
    editor.edit("pipelines/training/cut.py", ("Asks what `calibrate` asks, what", "Asks what `questions` has, what"))
    editor.edit(
        "cluster/embedded.py",
        (
            '"""The embedded services of the ground: PostgreSQL with pgvector, Valkey, an S3 gateway, Ray, and the `schema` step.\n',
            '"""Which services this machine runs: the embedded ones that its settings name, and those of the packages.\n',
        ),
        ("log = logging.getLogger(__name__)\n", ""),
        ("import logging\n", ""),
        ("    from cluster.embedded import FACTORIES\n\n", ""),
    )
    editor.edit(
        "cluster/services.py",
        ('"""What a service is, and which there are.\n', '"""What a service is.\n'),
    )


def _context(editor: Editor) -> None:
    """The rooms of a search are given `SearchContext`; only routes hold the whole bag."""
    editor.new("serve/context.py", CONTEXT)
    for file in ("answering", "candidates", "ids", "moments", "pictures", "relevance", "search", "shortcut", "stakes", "variants"):
        path = editor.root / f"serve/{file}.py"
        text = path.read_text(encoding="utf-8")
        imported = re.compile(r"^( *)from serve\.services import Services\n", re.M)
        if not imported.search(text):
            editor.notes.append(f"patch by hand: serve/{file}.py imports no Services alone")
            continue
        text = imported.sub(r"\1from serve.context import SearchContext\n", text)
        text = re.sub(r"\bServices\b", "SearchContext", text)
        path.write_text(text, encoding="utf-8")
    path = editor.root / "serve/services.py"
    text = path.read_text(encoding="utf-8")
    text, count = re.subn(r"^class Services:\n    \"\"\".*\"\"\"\n", 'class Services(SearchContext):\n    """One replica\'s settings and connections."""\n', text, flags=re.M)
    if count != 1:
        editor.notes.append("patch by hand: serve/services.py: class Services")
    for name in OF_CONTEXT:
        text, count = re.subn(rf"^    {name}: .*\n", "", text, flags=re.M)
        if count != 1:
            editor.notes.append(f"patch by hand: serve/services.py has no field {name}: {count}")
    text = text.replace("from serve.feed import Feed\n", "from serve.context import SearchContext\n", 1)
    path.write_text(text, encoding="utf-8")


def _keys(editor: Editor) -> None:
    """Keys are looked up with what they need; admission with what it needs."""
    editor.edit(
        "serve/keys.py",
        (
            "if TYPE_CHECKING:\n    from serve.readers import Readers\n    from serve.services import Services\n",
            "if TYPE_CHECKING:\n    from serve.readers import Readers\n    from serve.settings import SearchSettings\n",
        ),
        ("from typing import TYPE_CHECKING, Any, Literal\n", "from typing import TYPE_CHECKING, Any, Literal, Protocol\n"),
        (
            '\n\n@dataclass(frozen=True)\nclass Principal:\n',
            '\n\nclass KeyReaders(Protocol):\n    """Where keys are looked up, and for how long."""\n\n'
            "    @property\n    def readers(self) -> Readers: ...\n\n"
            "    @property\n    def search(self) -> SearchSettings: ...\n"
            '\n\n@dataclass(frozen=True)\nclass Principal:\n',
        ),
    )
    editor.edit("serve/keys.py", ("services: Services", "services: KeyReaders"), every=True)
    editor.edit(
        "serve/admission.py",
        ("from serve.services import Services\n", ""),
        ("from collections.abc import Sequence\n", "from collections.abc import Sequence\nfrom typing import Protocol\n"),
        ("from serve.keys import Principal\n", "from serve.gates import Gates\nfrom serve.keys import KeyReaders, Principal\n"),
        ("from serve.limits import Standing\n", "from serve.limits import Limits, Standing\n"),
        ("from cluster.errors import Rejected, Temporary\n",
         "from cluster.errors import Rejected, Temporary\nfrom cluster.settings import Settings\nfrom cluster.tasks import Tasks\n"),
        (
            '\n\nclass Admission:\n',
            '\n\nclass AdmissionContext(KeyReaders, Protocol):\n    """What it takes to let a request in."""\n\n'
            "    @property\n    def settings(self) -> Settings: ...\n\n"
            "    @property\n    def tasks(self) -> Tasks: ...\n\n"
            "    @property\n    def limits(self) -> Limits: ...\n\n"
            "    @property\n    def gates(self) -> Gates: ...\n"
            '\n\nclass Admission:\n',
        ),
        ("services: Services,", "services: AdmissionContext,"),
    )  # fmt: skip


def _links(editor: Editor) -> None:
    """A link is made of the settings alone."""
    editor.edit(
        "serve/media.py",
        ("from serve.services import Services\n", ""),
        ("def thumbnail_url(services: Services,", "def thumbnail_url(settings: Settings,"),
        ("def play_url(services: Services,", "def play_url(settings: Settings,"),
    )
    editor.edit("serve/media.py", ("signed(services.settings,", "signed(settings,"), every=True)
    for file in ("serve/moments.py", "serve/routes_videos.py"):
        editor.edit(
            file,
            ("media.thumbnail_url(services,", "media.thumbnail_url(services.settings,"),
            ("media.play_url(services,", "media.play_url(services.settings,"),
        )


def _counted(editor: Editor) -> None:
    """Searches are counted by whoever makes the answering: a search knows no metrics."""
    observe = "Callable[[Query, Answer, float], None]"
    editor.edit(
        "serve/answering.py",
        ("    def __init__(self, services: SearchContext) -> None:\n        self._services,",
         f"    def __init__(self, services: SearchContext, observe: {observe}) -> None:\n"
         "        self._observe = observe  # each answer, with the seconds that it took\n        self._services,"),
        ("self._services.metrics.observe(query, found, seconds)", "self._observe(query, found, seconds)"),
        ("from collections.abc import Mapping\n", "from collections.abc import Callable, Mapping\n"),
    )  # fmt: skip
    editor.edit(
        "serve/shortcut.py",
        ("    def __init__(self, app: ASGIApp, services: SearchContext) -> None:\n",
         f"    def __init__(\n        self, app: ASGIApp, services: SearchContext, observe: {observe}\n    ) -> None:\n"),
        ("Answering(services), keys.optional", "Answering(services, observe), keys.optional"),
        ("from collections.abc import Awaitable\n", "from collections.abc import Awaitable, Callable\n"),
        ("from serve.query import Body\n", "from serve.query import Body, Query\nfrom serve.search import Answer\n"),
    )  # fmt: skip
    editor.edit("serve/routes_search.py", ("Answering(services), ready", "Answering(services, services.metrics.observe), ready"))
    editor.edit(
        "serve/app.py",
        ("app.add_middleware(Shortcut, services=services)", "app.add_middleware(Shortcut, services=services, observe=services.metrics.observe)"),
    )


# ── After: on the moved tree ───────────────────────────────────────────────────────────────────────────────────────────


def after(root: Path, notes: list[str]) -> None:
    editor = Editor(root, notes)
    editor.new(
        "cluster/cli/__main__.py",
        '''
"""`python -m cluster.cli`: the command line where the console script `pixr` is not on the path."""

from cluster.cli.main import main

if __name__ == "__main__":
    main()
''',
    )
    editor.edit("cluster/cli/main.py", ('\n\nif __name__ == "__main__":\n    main()\n', "\n"))
    editor.edit("CONTRIBUTING.md", ("`--module settling`", "`--module payouts.settling`"))
    editor.edit("benchmarks/mutations/__main__.py", ("such as settling.", "such as payouts.settling."))
    _mutations(editor)
    _contracts(editor)
    _house_tests(editor)
    _long_lines(editor)


def _mutations(editor: Editor) -> None:
    """Mutation testing names modules below the ledger's top by their rooms: `payouts.batches`."""
    editor.edit(
        "benchmarks/mutations/draw.py",
        (
            "def sources(root: Path, modules: Sequence[str]) -> dict[str, str]:\n"
            '    return {each: (root / LEDGER / f"{each}.py").read_text(encoding="utf-8") for each in modules}\n',
            "def modules(root: Path) -> list[str]:\n"
            '    """The modules of the ledger by their names below it (`payouts.batches`), but for the localnet\'s."""\n'
            '    found = [path.relative_to(root / LEDGER) for path in sorted((root / LEDGER).rglob("*.py"))]\n'
            '    return [name_of(path) for path in found if path.stem != "__init__" and "localnet" not in path.parts]\n'
            "\n\n"
            "def name_of(path: Path) -> str:\n"
            '    """The name of a module, of its path below the ledger."""\n'
            '    return ".".join(path.with_suffix("").parts)\n'
            "\n\n"
            "def file_of(root: Path, module: str) -> Path:\n"
            '    """Where a module lies, by its name below the ledger."""\n'
            '    return (root / LEDGER).joinpath(*module.split(".")).with_suffix(".py")\n'
            "\n\n"
            "def sources(root: Path, names: Sequence[str]) -> dict[str, str]:\n"
            '    return {each: file_of(root, each).read_text(encoding="utf-8") for each in names}\n',
        ),
    )
    editor.edit(
        "benchmarks/mutations/runner.py",
        (
            '        names = [path.stem for path in sorted((self.tree / LEDGER).glob("*.py")) if path.stem != "__init__"]\n'
            "        self.texts = sources(self.tree, names)\n",
            "        self.texts = sources(self.tree, modules(self.tree))\n",
        ),
        ('path = self.tree / LEDGER / f"{mutant.module}.py"', "path = file_of(self.tree, mutant.module)"),
        ("import LEDGER, Plan, Uses, sample, sources", "import Plan, Uses, file_of, modules, sample, sources"),
    )
    editor.edit(
        "tests/mutant.py",
        (
            "                found.setdefault(test, {}).setdefault(Path(file).stem, []).append(line)\n",
            '                below = file.rpartition(f"{os.sep}ledger{os.sep}")[2]\n'
            "                found.setdefault(test, {}).setdefault(name_of(Path(below)), []).append(line)\n",
        ),
        ("from cluster import", "from benchmarks.mutations.draw import name_of\nfrom cluster import"),
    )
    editor.edit(
        "tests/test_mutations.py",
        (
            'TEXTS = sources(ROOT, [path.stem for path in (ROOT / "ledger").glob("*.py") if path.stem != "__init__"])',
            "TEXTS = sources(ROOT, modules(ROOT))",
        ),
        ("import Plan, Uses, equivalents, sample, sources", "import Plan, Uses, equivalents, modules, sample, sources"),
    )


def _contracts(editor: Editor) -> None:
    path = editor.root / "pyproject.toml"
    text = path.read_text(encoding="utf-8")
    begin, end = text.find("[tool.importlinter]"), text.find("[tool.deptry]")
    if begin < 0 or end < begin:
        editor.notes.append("patch by hand: pyproject.toml: the import contracts")
        return
    contracts = (HERE / "contracts.toml").read_text(encoding="utf-8")
    path.write_text(text[:begin] + contracts.rstrip("\n") + "\n\n" + text[end:], encoding="utf-8")


def _long_lines(editor: Editor) -> None:
    """Lines that longer names have made too long."""
    editor.edit(
        "cluster/door/bodies.py",
        ("# What has a key here has one for a replica too, which judges it (`token_of` of serve/access/keys.py reads the first of each header).\n",
         "# What has a key here has one for a replica too, which judges it (`token_of` of serve/access/keys.py reads the first of each\n"
         "# header).\n"),
    )  # fmt: skip
    editor.edit(
        "cluster/embedded/postgres_user.py",
        ("of the system. `python -m cluster.embedded.postgres_user FILES… -- PROGRAM…` does so and becomes the program. Where the kernel has no\n"
         "Landlock, or the trial of a program fails under it, PostgreSQL runs without, and the log says so.\n",
         "of the system. `python -m cluster.embedded.postgres_user FILES… -- PROGRAM…` does so and becomes the program. Where the\n"
         "kernel has no Landlock, or the trial of a program fails under it, PostgreSQL runs without, and the log says so.\n"),
    )  # fmt: skip
    editor.edit(
        "serve/search/answer.py",
        ("side by side           pipelines.index.vectors, pipelines.index.fulltext\n", "side by side           pipelines.index\n"),
        ("committed search,           ledger.appearances.appearances\n", "committed search,           ledger.appearances\n"),
    )
    editor.edit(
        "tests/cluster/cli/test_main.py",
        ('    commands = "cluster.cli.stack, ledger.audit.audit, ledger.payouts.listing, pipelines.index.admin, pipelines.jobs.jobs, serve.client, serve.access.keys"\n',
         '    commands = "cluster.cli.stack, ledger.audit.audit, ledger.payouts.listing, pipelines.index.admin, pipelines.jobs.jobs"\n'
         '    commands += ", serve.client, serve.access.keys"\n'),
    )  # fmt: skip
    editor.edit(
        "tests/cluster/embedded/test_postgres_user.py",
        ('"from cluster.embedded import factories as embedded; from cluster import settings; embedded.Postgres(settings.load()).prepare()"',
         '"from cluster import settings; from cluster.embedded.postgres import Postgres; Postgres(settings.load()).prepare()"'),
    )  # fmt: skip


def _house_tests(editor: Editor) -> None:
    """The README of each package names its modules, not the one at the top; the rooms have a test of their own."""
    path = editor.root / "tests/test_house.py"
    text = path.read_text(encoding="utf-8")
    text, count = re.subn(r"def test_the_readme_names_every_module\(\).*?\n\n\n(?=def |@)", "", text, flags=re.S)
    if count != 1:
        editor.notes.append("patch by hand: tests/test_house.py: test_the_readme_names_every_module goes")
    path.write_text(text, encoding="utf-8")
    (editor.root / "tests/test_rooms.py").write_text((HERE / "test_house_new.py").read_text(encoding="utf-8"), encoding="utf-8")
