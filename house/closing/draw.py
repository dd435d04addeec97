import ast,random,sys,pathlib
seed=int(sys.argv[1]);items=[]
for d in "cluster pipelines serve ledger benchmarks".split():
    for p in sorted(pathlib.Path(d).rglob("*.py")):
        if "tests" in p.parts or p.name.startswith(("test_","conftest")) or p.name.endswith("_test.py"): continue
        t=ast.parse(p.read_text())
        def walk(n,q):
            if isinstance(n,(ast.Module,ast.ClassDef,ast.FunctionDef,ast.AsyncFunctionDef)):
                ds=ast.get_docstring(n)
                if ds:
                    if isinstance(n,ast.Module): sig="module"
                    elif isinstance(n,ast.ClassDef): sig="class "+n.name+"("+", ".join(map(ast.unparse,n.bases))+")"
                    else: sig="def "+n.name+"("+ast.unparse(n.args)+")"+(" -> "+ast.unparse(n.returns) if n.returns else "")
                    items.append((str(p),".".join(q),getattr(n,"lineno",1),sig,ds))
            for c in ast.iter_child_nodes(n):
                walk(c,q+[c.name] if hasattr(c,"name") and isinstance(c,(ast.ClassDef,ast.FunctionDef,ast.AsyncFunctionDef)) else q)
        walk(t,[])
s=random.Random(seed).sample(items,80)
print(len(items))
for i,(p,q,l,sig,ds) in enumerate(s,1): print(f"\n#{i} {p}:{l} {q}\n{sig}\n{ds}")
