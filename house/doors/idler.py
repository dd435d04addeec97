"""Idle policy for helpers' processes; those of worktrees named in /tmp/v/fast are given the ordinary one."""
import os, re, time
PAT = re.compile(r"^/work/(wt-[a-z0-9-]+|house)(/|$)")
KEEP = {"wt-run"}
def env_of(p): return open(f"/proc/{p}/environ", "rb").read()
while True:
    fast = set(open("/tmp/v/fast").read().split())
    for p in os.listdir("/proc"):
        if not p.isdigit(): continue
        try:
            m = PAT.match(os.readlink(f"/proc/{p}/cwd"))
            env = env_of(p)
            f = re.search(rb"/work/(wt-[a-z0-9-]+)", env)
            who = m[1] if m else (f[1].decode() if f else "")
            lane = b"LANE_OF=idle" in env
            if who in KEEP: continue
            want = os.SCHED_OTHER if who in fast else os.SCHED_IDLE if (m or lane) else None
            if want is None: continue
            for t in os.listdir(f"/proc/{p}/task"):
                if os.sched_getscheduler(int(t)) != want:
                    os.sched_setscheduler(int(t), want, os.sched_param(0))
        except (OSError, ValueError): pass
    time.sleep(1)
