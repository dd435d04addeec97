"""Real folders: one bad row costs no neighbour, what is left out is said, and no other user gets at anything."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import subprocess
import time
from pathlib import Path

import pytest

from cluster import embedded
from cluster.folders import OTHERS
from pipelines import samples
from pipelines.film import Form
from pipelines.samples import Sample
from tests.stack import Stack

REASON_WITHIN_S = 20.0
FREE = b"\x00\x00\x00\x10free"  # the box that may stand anywhere in an MP4, and mean nothing


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("clip")
    (sample,) = samples.write(folder, 1, 5, forms=(Form(width=320, height=180),), shots=(2, 2), seconds=(2.0, 2.2))
    return (folder / sample.file).read_bytes()


def test_nothing_of_a_running_pixr_can_be_entered_by_another_user(stack: Stack, catalogue: list[Sample]) -> None:
    """Ray opens its folders, sockets and logs to everybody: the folder around them is closed."""
    ray = embedded.Ray(stack.settings)._folder
    for closed in (stack.settings.data_dir, ray.parent):
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    wide = [
        path
        for path in stack.settings.data_dir.rglob("*")
        if stat.S_IMODE(path.lstat().st_mode) & OTHERS and not path.is_symlink() and not path.is_relative_to(ray)
    ]
    assert wide == []
    assert catalogue
    if os.geteuid() == 0:
        who = ("setpriv", "--reuid=65533", "--regid=65533", "--clear-groups")
        for folder in (stack.settings.data_dir, ray):
            done = subprocess.run((*who, "ls", str(folder)), capture_output=True, check=False)
            assert done.returncode != 0


def test_whatever_a_row_or_a_file_holds_the_others_get_in(stack: Stack, clip: bytes, tmp_path: Path) -> None:
    for number, name in enumerate(("good", "surrogate", "nul", "tag", "unsaid", "s1/intro")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.mp4").write_bytes(clip + FREE + number.to_bytes(8))
    (tmp_path / "s2").mkdir()
    (tmp_path / "s2" / "intro.mp4").write_bytes((tmp_path / "s1" / "intro.mp4").read_bytes())
    (tmp_path / os.fsdecode(b"latin1_\xe9.mp4")).write_bytes(clip + b"odd")
    (tmp_path / "link.mp4").symlink_to("/etc/passwd")
    rows = [
        {"file": ".\\GOOD.mp4", "title": "A title of its own", "creator": "zoe"},
        {"file": "surrogate.mp4", "title": "bad \ud83d title"},
        {"file": "nul.mp4", "language": "x\0y"},
        {"file": "tag.mp4", "tags": ["x" * 4500]},
        {"file": "missing.mp4", "creator": "zoe"},
    ]
    (tmp_path / "manifest.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="ascii")
    job = stack.json("ingest", str(tmp_path))
    assert (job["status"], job["videos"]["ready"], job["videos"]["total"]) == ("succeeded", 3, 3)
    said = {f"{row['kind']}: {name}" for row in job["remarks"] for name in row["names"]}
    assert said == {
        "left out: latin1_\\udce9.mp4",
        "left out: link.mp4",
        "left out: surrogate.mp4",
        "left out: nul.mp4",
        "left out: tag.mp4",
        "left out: s2/intro.mp4 is s1/intro.mp4",
        "row refused: manifest.jsonl, line 2",
        "row refused: manifest.jsonl, line 3",
        "row refused: manifest.jsonl, line 4",
        "row without file: manifest.jsonl, line 5: missing.mp4",
        "file without row: unsaid.mp4",
        "file without row: s1/intro.mp4",
        "file without row: s2/intro.mp4",
    }
    with stack.admin as client:
        assert client.get(f"/v1/jobs/{job['id']}").json()["remarks"] == job["remarks"]
    assert "row without file: manifest.jsonl, line 5: missing.mp4" in stack.pixr("jobs", "show", job["id"])
    rows_of = stack.rows(
        "SELECT c.handle FROM media.videos v JOIN media.creators c ON c.id = v.creator_id"
        " WHERE v.title = 'A title of its own'"
    )
    assert rows_of == [("zoe",)]


def test_a_job_that_cannot_work_says_why_at_once_in_one_line(stack: Stack, clip: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(clip + FREE + (77).to_bytes(8))
    (tmp_path / "manifest.csv").write_text("file,visibility\na.mp4,secret\n", encoding="utf-8")
    done = stack.run("ingest", str(tmp_path))
    assert done.returncode == 2
    assert "manifest.csv, line 2: visibility 'secret'" in done.stderr
    allowing = dataclasses.replace(stack, environ={**stack.environ, "PIXR_MODEL_ALLOWED": "hf-hub:nobody/has-this"})
    began = time.monotonic()
    (tmp_path / "manifest.csv").unlink()
    job = allowing.json_of(1, "ingest", str(tmp_path), "--model", "hf-hub:nobody/has-this")
    assert time.monotonic() - began < REASON_WITHIN_S * 3  # the model is asked for by a worker that has to start
    assert job["status"] == "failed"
    assert job["submissions"] == 1
    assert not [part for part in ("Traceback", "\x1b", "pid=", "/work", "site-packages") if part in job["error"]]
    assert "\n" not in job["error"]


def test_a_model_comes_from_a_list(stack: Stack) -> None:
    with stack.admin as client:
        for name in ("/etc", "hf-hub:evil/model"):
            answer = client.post("/v1/jobs", json={"source": "s3://pixr/incoming/", "model": name})
            assert answer.status_code == 422
            assert "unknown-model" in answer.text


def test_a_mended_manifest_takes_effect_and_what_was_taken_down_stays_so(
    stack: Stack, clip: bytes, tmp_path: Path
) -> None:
    (tmp_path / "a.mp4").write_bytes(clip + FREE + (501).to_bytes(8))
    (tmp_path / "manifest.csv").write_text("file,title,creator\nb.mp4,Zanzibar,zora\n", encoding="utf-8")
    assert stack.json("ingest", str(tmp_path))["videos"]["ready"] == 1
    (tmp_path / "manifest.csv").write_text("file,title,creator\na.mp4,Zanzibar,zora\n", encoding="utf-8")
    job = stack.json("ingest", str(tmp_path))
    assert (job["videos"]["skipped"], {row["kind"] for row in job["remarks"]}) == (
        1,
        {"creator changed", "words changed"},
    )
    video, creator, of_moments = stack.rows(
        "SELECT v.id, c.handle, (SELECT count(*) FROM media.segments s WHERE s.video_id = v.id AND s.creator_id = c.id)"
        " FROM media.videos v JOIN media.creators c ON c.id = v.creator_id WHERE v.title = 'Zanzibar'"
    )[0]
    assert (creator, of_moments > 0) == ("zora", True)
    assert stack.json("ingest", str(tmp_path))["remarks"] == []
    with stack.admin as client:
        assert client.delete(f"/v1/videos/{video}").status_code == 200
    job = stack.json("ingest", str(tmp_path))  # exit code 0
    assert (job["status"], job["videos"]["removed"], job["videos"]["failed"]) == ("succeeded", 1, 0)
    assert [row["kind"] for row in job["remarks"]] == ["taken down"]
    assert "taken down" in stack.pixr("jobs", "show", job["id"])
