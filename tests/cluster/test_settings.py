"""Settings: unknown names and wrong types are refused in one line; variables overlay the file; includes lie beneath."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import settings
from cluster.errors import Rejected
from cluster.settings import PostgresSettings, Settings


def written(folder: Path, text: str) -> Path:
    file = folder / "settings.toml"
    file.write_text(text, encoding="utf-8")
    return file


def loaded(folder: Path, text: str, **environ: str) -> Settings:
    return settings.load(written(folder, text), environ)


def test_the_shipped_local_settings_are_valid() -> None:
    assert settings.load(environ={}).postgres.url == "embedded"


def test_a_variable_overlays_the_file(tmp_path: Path) -> None:
    made = loaded(tmp_path, '[postgres]\nurl = "postgresql://file"', PIXR_POSTGRES_URL="postgresql://env")
    assert made.postgres.url == "postgresql://env"


def test_numbers_booleans_and_lists_are_read_from_variables(tmp_path: Path) -> None:
    made = loaded(
        tmp_path, "", PIXR_S3_FREE_SPACE_MIN_MB="9", PIXR_S3_INGEST_BUCKETS="a, b", PIXR_SUPERVISOR_BACKOFF_MAX_S="2"
    )
    assert (made.s3.free_space_min_mb, made.s3.ingest_buckets, made.supervisor.backoff_max_s) == (9, ("a", "b"), 2.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[postgress]\nurl = 'x'", "did you mean 'postgres'"),
        ("[postgres]\nulr = 'x'", "did you mean 'url'"),
        ("[s3]\nfree_space_min_mb = 'four'", "expected int"),
        ("[s3]\nfree_space_min_mb = true", "expected int"),
        ("[ray]\nauth_mode = 'none'", "expected token or disabled"),
        ("[ray]\naddress = 'head:6379'", "dashboard_url"),
        ("[s3]\nfree_space_min_mb = -1", "free_space_min_mb is -1, expected 0 or more"),
        ("[search]\ndeadline_s = nan", "deadline_s is nan, expected a number"),
        ("[search]\ndeadline_s = inf", "deadline_s is inf, expected a number"),
        ("[search]\nrelevance_min_ppm = -2", "relevance_min_ppm"),
        ("[search]\ncopies_cosine_ppm = -2", "copies_cosine_ppm"),
        ("[search]\ncopies_cosine_ppm = 98", "copies_cosine_ppm is 98, expected above 500000"),
        ("[supervisor]\ncheck_interval_s = 0", "check_interval_s must be above 0"),
        ("[serve]\nport = 0", "port is 0, expected 1 to 65535"),
        ("[serve]\nport = 80000", "port is 80000, expected 1 to 65535"),
        ("postgres = 3", "must be a table"),
        ("[postgres", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_what_to_do(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(Rejected, match=said):
        loaded(tmp_path, text)


def test_what_an_earlier_release_knew_is_ignored_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    loaded(tmp_path, "[economics]\ncaptive_min_pix = 4", PIXR_ECONOMICS_FAN_IN_SHARE_PPM="3")
    assert "captive_min_pix" in caplog.text
    assert "PIXR_ECONOMICS_FAN_IN_SHARE_PPM" in caplog.text


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("PIXR_POSTGRES_ULR", "x", "did you mean 'url'"),
        ("PIXR_NOTHING_HERE", "x", "unknown variable"),
        ("PIXR_S3_FREE_SPACE_MIN_MB", "many", "expected int"),
    ],
)
def test_a_wrong_variable_is_refused(tmp_path: Path, variable: str, value: str, said: str) -> None:
    with pytest.raises(Rejected, match=said):
        loaded(tmp_path, "", **{variable: value})


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="does not exist"):
        settings.load(tmp_path / "none.toml", {})


def test_an_include_lies_beneath_the_file_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "under.toml").write_text(
        '[postgres]\nurl = "postgresql://under"\nshared_buffers_mb = 77', encoding="utf-8"
    )
    made = loaded(tmp_path, 'include = ["under.toml"]\n[postgres]\nurl = "postgresql://over"')
    assert (made.postgres.url, made.postgres.shared_buffers_mb) == ("postgresql://over", 77)


def test_files_that_include_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="include each other"):
        loaded(tmp_path, 'include = ["settings.toml"]')


def test_one_section_can_be_replaced_without_touching_the_rest(tmp_path: Path) -> None:
    made = loaded(tmp_path, "")
    changed = made.with_section(PostgresSettings(url="postgresql://other"))
    assert (changed.postgres.url, made.postgres.url, changed.s3) == ("postgresql://other", "embedded", made.s3)
