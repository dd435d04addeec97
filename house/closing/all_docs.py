"""all_docs.py FILES…: every docstring with its signature, numbered, of the files given."""
import ast, sys, pathlib
n = 0
for p in map(pathlib.Path, sys.argv[1:]):
    if p.name.startswith(("test_", "conftest")): continue
    t = ast.parse(p.read_text()); print(f"\n===== {p}")
    def walk(node, q):
        global n
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and (ds := ast.get_docstring(node)):
            n += 1
            if isinstance(node, ast.Module): sig = "module"
            elif isinstance(node, ast.ClassDef): sig = "class " + ".".join(q) + "(" + ", ".join(map(ast.unparse, node.bases)) + ")"
            else: sig = "def " + ".".join(q) + "(" + ast.unparse(node.args) + ")" + (" -> " + ast.unparse(node.returns) if node.returns else "")
            print(f"#{n}:{getattr(node, 'lineno', 1)} {sig}\n    {ds}")
        for c in ast.iter_child_nodes(node):
            walk(c, q + [c.name] if isinstance(c, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) else q)
    walk(t, [])
print(n, "docstrings", file=sys.stderr)
