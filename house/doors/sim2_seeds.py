"""seeds A B [fierce] [protocol] [weather]: a run of seeds on a database of its own, in one process"""
import sys, tempfile, time, traceback
from pathlib import Path
from cluster import database, migrations, runtime, supervisor
from tests.conftest import throwaway_settings, wait_for_no_disk, wait_up
from tests.ledger.simulator.ground import Ground
from tests.ledger.simulator.runs import Job, Tally, run
import logging; logging.disable(logging.CRITICAL)
a, b = int(sys.argv[1]), int(sys.argv[2])
fierce = float(sys.argv[3]) if len(sys.argv) > 3 else 1.0
protocol = sys.argv[4] if len(sys.argv) > 4 else "ours"
weathers = sys.argv[5].split(",") if len(sys.argv) > 5 else [""]
until = float(sys.argv[6]) if len(sys.argv) > 6 else 1e9
with tempfile.TemporaryDirectory(prefix="pixr-") as folder:
    settings = throwaway_settings(Path(folder))
    process = supervisor.start(settings, only=("postgres",))
    try:
        wait_up(settings, process)
        postgres = runtime.postgres_url(settings, "postgres")
        wait_for_no_disk(postgres)
        with database.connect(postgres, autocommit=True) as c:
            c.execute("CREATE DATABASE sim0")
        url = postgres.rsplit("/", 1)[0] + "/sim0"
        migrations.migrate(url)
        t0 = time.monotonic()
        with Ground(url) as ground:
            print("ground", round(time.monotonic() - t0, 1), len(ground.machine.states), len(ground.machine.transitions), flush=True)
            for weather in weathers:
                found = Tally(ground.machine)
                for seed in range(a, b):
                    if time.monotonic() - t0 > until: break
                    t = time.monotonic()
                    try:
                        o = run(ground, Job(seed, fierce, protocol, weather))
                    except BaseException:
                        print("SEED", seed, weather, "RAISED", flush=True); traceback.print_exc(); 
                        if isinstance(sys.exc_info()[1], KeyboardInterrupt): raise
                        continue
                    found.add(o)
                    dt = time.monotonic() - t
                    if not o.ok or dt > 15:
                        print(f"seed {seed} {weather} {dt:.1f}s", *o.problems[:4], sep="\n   ", flush=True)
                        print("".join(o.traces)[-1500:], flush=True)
                print(weather, found, "|", sorted(found.failing), round((time.monotonic()-t0)/max(1,found.seeds),2), "s/seed", flush=True)
                print(found.coverage(), flush=True)
    finally:
        process.terminate(); process.wait(60)
