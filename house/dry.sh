#!/bin/bash
# dry.sh REV [UPTO] [WORKTREE]: a throw-away worktree of a revision, moved.
cd /work/main || exit 1
D=${3:-/work/wt-house-dry}
[ -d "$D" ] || git worktree add -q --detach "$D" "$1" || exit 1
git -C "$D" checkout -q -f --detach "$1" && git -C "$D" clean -fdq && ln -sfn /work/main/.venv "$D/.venv"
exec /root/.pyenv/versions/3.12.1/bin/python /work/house/move.py "$D" --commit --upto "${2:-docs}"
