"""How long ingest jobs are remembered: each by a row, and by one for every video that it looked at.

Deleted are those that ended long ago, the oldest first and a bounded number of rows a statement; the videos and what was made
of them stay. Lists of uploads that no job names any more go with them.
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
    """Delete some of what ended more than that many days ago (0: nothing); whether there may be more."""
    if not keep_d:
        return False
    given = {"keep_d": keep_d, "most": DELETED_MAX}
    with connection.transaction():
        if connection.execute(VIDEOS, given).rowcount >= DELETED_MAX:
            return True
        connection.execute(JOBS, given)
        connection.execute(LISTS, given)
    return False
