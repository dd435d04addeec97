"""What the house test counts on a tree, as a list: violations.py TREE."""
import importlib.util, os, sys, types
from pathlib import Path
root = Path(sys.argv[1]).resolve()
stub = types.ModuleType("cluster.settings"); stub.ROOT = root
sys.modules["cluster"] = types.ModuleType("cluster"); sys.modules["cluster.settings"] = stub
sys.modules.setdefault("pytest", types.SimpleNamespace(mark=types.SimpleNamespace(parametrize=lambda *a, **k: (lambda f: f))))
spec = importlib.util.spec_from_file_location("house_new", Path(__file__).with_name("test_house_new.py"))
house = importlib.util.module_from_spec(spec); spec.loader.exec_module(house)
from collections import defaultdict
def sizes():
    found = defaultdict(int)
    for module in house.MODULES.keys() - house.FOLDERS: found[module.rpartition(".")[0]] += 1
    return found
print("# folders", {k: v for k, v in sorted(sizes().items())})
print("# module circles"); [print("  ", *c) for c in house.circles({m: house.imported(m) for m in house.MODULES})]
graph = defaultdict(set)
for m in house.MODULES.keys() - house.FOLDERS: graph[house.room(m)] |= {house.room(e) for e in house.imported(m)} - {house.room(m)}
print("# room circles"); [print("  ", *c) for c in house.circles(graph)]
twice = {k: v for k, v in house.classes().items() if len(v) > 1}
print("# class names", len(twice)); [print("  ", f"{p}.{n}:", ", ".join(w)) for (p, n), w in sorted(twice.items())]
lacking = sorted(house.without_sections()); print("# docstrings", len(lacking)); [print("  ", each) for each in lacking]
words = list(house.odd_words()); print("# words", len(words)); [print("  ", each) for each in words]
foreign = sorted(house.foreign_tables()); print("# foreign tables", len(foreign)); [print("  ", each) for each in foreign]
