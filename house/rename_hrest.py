"""hrest's renames of public names again, over any tree: rename_hrest.py TREE. Running it twice changes nothing more."""
import re, subprocess, sys
from pathlib import Path
tree = Path(sys.argv[1])
RULES = (
    (r"\bruntime\.mark\b", "runtime.redis_prefix"),
    (r"\bgates\.asked_by\b", "gates.on_behalf_of"),
    (r"\bgates\.asker\b", "gates.current_caller"),
)
BY_FILE = {
    "cluster/runtime.py": ((r"^def mark\(", "def redis_prefix("),),
    "serve/http/gates.py": ((r"^def asked_by\(", "def on_behalf_of("), (r"^def asker\(", "def current_caller(")),
    "pipelines/jobs/gauges.py": ((r"_store\.look\(\)", "_store.measure()"),),
    "cluster/ray_cluster.py": ((r"    def look\(self\)", "    def measure(self)"),),
    "serve/deployment.py": ((r"\bmark\b", "fingerprint"),),
}
for name in subprocess.run(["git", "-C", tree, "ls-files", "*.py"], capture_output=True, text=True, check=True).stdout.split():
    text = new = (tree / name).read_text()
    for old, by in (*RULES, *BY_FILE.get(name, ())):
        new = re.sub(old, by, new, flags=re.M)
    if new != text:
        (tree / name).write_text(new); print(name)
