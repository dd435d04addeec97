"""NAMES CAP: each wrong protocol until it is caught (at most CAP seeds), then ours on the same seeds"""
import logging, signal, sys, tempfile, time, traceback
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
logging.disable(logging.CRITICAL)
from pathlib import Path
from cluster import database, migrations, runtime, supervisor
from tests.conftest import throwaway_settings, wait_for_no_disk, wait_up
from tests.ledger.simulator.ground import Ground
from tests.ledger.simulator.protocols import WRONG
from tests.ledger.simulator.runs import Job, run
from tests.ledger.simulator.truth import kinds_of
names = sys.argv[1].split(",") if sys.argv[1] else [w.name for w in WRONG]
cap = int(sys.argv[2]); first = int(sys.argv[3]) if len(sys.argv) > 3 else 0
with tempfile.TemporaryDirectory(prefix="pixr-") as folder:
    settings = throwaway_settings(Path(folder))
    process = supervisor.start(settings, only=("postgres",))
    try:
        wait_up(settings, process)
        postgres = runtime.postgres_url(settings, "postgres")
        wait_for_no_disk(postgres)
        with database.connect(postgres, autocommit=True) as c: c.execute("CREATE DATABASE sim0")
        url = postgres.rsplit("/", 1)[0] + "/sim0"
        migrations.migrate(url)
        with Ground(url) as ground:
            print("ground", flush=True)
            for name in names:
                wrong = next(w for w in WRONG if w.name == name)
                for seed in range(first, first + cap):
                    t = time.monotonic(); c = time.process_time()
                    o = run(ground, Job(seed), wrong)
                    hit = kinds_of(o.problems) & set(wrong.kinds)
                    print(f"{name} {seed} {'CAUGHT' if hit else '-'} {list(o.problems[:2])} {round(time.monotonic()-t,1)}s cpu {round(time.process_time()-c,1)} pay {o.counts.get('payouts')} att {o.counts.get('attempts')} crash {o.counts.get('crash',0)} fr {o.counts.get('freezes')} {''.join(o.traces)[-300:] if 'broken' in str(o.problems) else ''}", flush=True)
                    if hit:
                        for s in range(first, seed + 1):
                            ours = run(ground, Job(s, weather=name))
                            print("   ours", s, ours.problems[:2], ours.counts.get("stopped, as a story demands", ""), "".join(ours.traces)[-500:], flush=True)
                        break
                else:
                    print(name, "NOT CAUGHT IN", cap, flush=True)
    finally:
        process.terminate(); process.wait(60)
