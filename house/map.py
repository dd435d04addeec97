import ast,sys,subprocess,pathlib
pk=('cluster','pipelines','serve','ledger')
for p in pk:
    for f in sorted(pathlib.Path(p).rglob('*.py')):
        t=ast.parse(f.read_text())
        d=(ast.get_docstring(t) or '').split('\n\n')[0].replace('\n',' ')
        imps=set()
        for n in ast.walk(t):
            if isinstance(n,ast.ImportFrom) and n.module and n.module.split('.')[0] in pk:
                if n.module in pk:
                    imps|={f'{n.module}.{a.name}' for a in n.names}
                else: imps.add(n.module)
            elif isinstance(n,ast.Import):
                imps|={a.name for a in n.names if a.name.split('.')[0] in pk}
        own=[i.split('.',1)[1] for i in sorted(imps) if i.startswith(p+'.')]
        print(f"{f} {len(f.read_text().splitlines())} | {d[:160]} | -> {' '.join(own)}")
