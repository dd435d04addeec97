"""Deleting ingest jobs that ended long ago, with their rows in `media.job_videos`.

The oldest jobs go first, a bounded number of rows per statement; videos and their moments stay. Old upload lists that
no job names any more are deleted too.
"""

from __future__ import annotations

from psycopg import Connection

DELETED_MAX = 10_000  # rows a statement
VIDEOS = """
    DELETE FROM media.job_videos WHERE ctid = ANY (ARRAY(
        SELECT j.ctid FROM (SELECT id FROM media.jobs WHERE finished_at < now() - make_interval(days => %(keep_d)s)
                            ORDER BY finished_at, id LIMIT %(most)s) o
        JOIN media.job_videos j ON j.job_id = o.id LIMIT %(most)s))"""
JOBS = """
    DELETE FROM media.jobs j WHERE finished_at < now() - make_interval(days => %(keep_d)s)
        AND NOT EXISTS (SELECT FROM media.job_videos v WHERE v.job_id = j.id)"""
LISTS = """
    DELETE FROM media.lists l WHERE created_at < now() - make_interval(days => %(keep_d)s)
        AND NOT EXISTS (SELECT FROM media.jobs j WHERE j.source = l.uri)"""


def delete_some(connection: Connection, keep_d: int) -> bool:
    """Delete some of the jobs that ended more than `keep_d` days ago (0: none); return whether there may be more."""
    if not keep_d:
        return False
    parameters = {"keep_d": keep_d, "most": DELETED_MAX}
    with connection.transaction():
        if connection.execute(VIDEOS, parameters).rowcount >= DELETED_MAX:
            return True
        connection.execute(JOBS, parameters)
        connection.execute(LISTS, parameters)
    return False
