"""The layer contracts of contracts.toml against a moved tree, without import-linter: layers.py TREE."""
import sys, tomllib
from pathlib import Path
sys.path.insert(0, str(Path(__file__).parent))
import graph
root = Path(sys.argv[1])
files = graph.files_of(root)
edges = graph.edges(root, files)
for contract in tomllib.loads((Path(__file__).parent / "contracts.toml").read_text())["tool"]["importlinter"]["contracts"]:
    if contract["type"] != "layers": continue
    for box in contract.get("containers", [""]):
        place, group = {}, {}
        for number, layer in enumerate(contract["layers"]):
            sep = "|" if "|" in layer else ":"
            for name in layer.split(sep):
                name = name.strip().strip("()")
                full = f"{box}.{name}" if box else name
                place[full] = number; group[full] = sep
        def where(module):
            parts = module.split(".")
            for n in range(len(parts), 0, -1):
                if ".".join(parts[:n]) in place: return ".".join(parts[:n])
        for e in edges:
            a, b = where(e.source), where(e.target)
            if a is None or b is None or a == b: continue
            if place[a] > place[b] or (place[a] == place[b] and group[a] == "|"):
                print(f"{contract['name']}: {e.source} -> {e.target} {e.name} [{e.kind}]")
        if contract.get("exhaustive"):
            for module in files:
                parts = module.split(".")
                if parts[0] == box and len(parts) >= 2 and f"{box}.{parts[1]}" not in place: print("not in a layer:", module)
print("checked", len(edges))
