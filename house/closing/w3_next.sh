#!/bin/bash
# done, then pick the next from the list until one needs a hand
cd /work/wt-walls3
[ "$1" = done ] && { /tmp/v/w3_done.sh || exit 1; git rev-parse -q --verify CHERRY_PICK_HEAD && exit 1; }
while c=$(head -1 /tmp/v/w3_list); [ -n "$c" ]; do
  sed -i 1d /tmp/v/w3_list
  python3 /tmp/v/w3_pick.py $c
  git rev-parse -q --verify CHERRY_PICK_HEAD && break
done
