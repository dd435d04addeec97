#!/bin/bash
cd /work/wt-walls3
B=/work/wt-walls3-env/.venv/bin
F=$(git diff --name-only HEAD --diff-filter=AM | grep '\.py$')
grep -ln '^<<<<<<<\|^>>>>>>>\|^|||||||' $(git diff --name-only HEAD --diff-filter=AM) && { echo MARKERS; exit 1; }
[ -n "$F" ] && { $B/ruff check -q --fix $F || exit 1; $B/ruff format -q $F; }
git add -A .; git -c core.editor=true cherry-pick --continue 2>&1 | tail -1; git status --short | grep -v venv; git log -1 --format='%h %s'
