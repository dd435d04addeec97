"""rename_public.py TREE: the public renames of hpipe, again over a tree (safe to run twice)."""
import re,sys,pathlib
ROOT=pathlib.Path(sys.argv[1])
FILES=[f for d in ('pipelines','serve','ledger','cluster','benchmarks','tests') for f in (ROOT/d).rglob('*.py')]
T={f:f.read_text() for f in FILES}
def sub(rx,new,files=None):
    for f in (FILES if files is None else [ROOT/x for x in files]):
        if f in T: T[f]=re.sub(rx,new,T[f])
def name(mod,old,new,call=False):
    """Module-level name `old` of pipelines.<mod> becomes `new`: there, as `<module>.old`, and where it is imported."""
    m=mod.split('.')[-1]; own=ROOT/('pipelines/'+mod.replace('.','/')+'.py')
    for f in FILES:
        s=T[f]
        if f==own:
            s=re.sub(rf'(?<![\w.\'"]){old}\b(?!\s*=[^=])(?![\'"])',new,s) if call is False else re.sub(rf'(?<![\w.\'"]){old}(?=\()',new,s)
        elif re.search(rf'from pipelines[\w.]* import [^\n]*\b{m}\b|import pipelines',s) or re.search(rf'^\s+from pipelines[\w.]* import [^\n]*\b{m}\b',s,re.M):
            s=re.sub(rf'(?<![\w.]){m}\.{old}\b',f'{m}.{new}',s)
        imp=re.compile(rf'(from pipelines\.{re.escape(mod)} import )((?:\([^)]*\))|[^\n]*)')
        hit=[x for x in imp.finditer(s) if re.search(rf'\b{old}\b',x.group(2))]
        if hit and f!=own:
            s=re.sub(rf'(?<![\w.\'"]){old}\b(?!\s*=[^=])(?![\'"])',new,s)
        T[f]=s
name('index.vectors','found','moment_details',True); name('index.vectors','fit','estimate_fitting',True)
name('index.fulltext','wanted','without_excluded',True); name('index.highlights','asked','words_of',True)
name('sources.handles','meant','resolve',True); name('sources.handles','nobody','no_creator'); name('sources.handles','ANYBODY','ANY_CREATOR')
name('sources.selection','Said','MatchedRow'); name('sources.copies','once','without_copies',True)
name('sources.local_files','why','reason_of',True); name('sources.source','Sent','UploadedSource')
name('sources.ownership','around','manifests_around',True); name('sources.buckets','seen','source_objects',True)
name('decode.frames','fitted','fit_to_model',True); name('training.cut','fitted','fit_and_write',True)
name('nodes','heard','answer_of',True); name('nodes','judge','require_any',True)
for o,n in (('one','one_to_one'),('many','one_to_many'),('alive','with_signs'),('settled','recorded')): name('ingest',o,n,True)
name('stages','described','probed_columns',True)
sub(r'\bsaid\(\)','words()',['pipelines/catalog/catalog.py','pipelines/sources/mending.py']); sub(r'def said\(self\)','def words(self)',['pipelines/sources/listed.py'])
sub(r'\btold\(\)','summary()'); sub(r'def told\(self\)','def summary(self)',['pipelines/sources/remarks.py'])
sub(r'\b(sandbox|self|sandbox\(\)|machine|held|box|keeper)\.found\b',r'\1.available',['pipelines/sandbox/sandbox.py'])
for f in FILES:
    if T[f]!=f.read_text(): f.write_text(T[f]); print(f.relative_to(ROOT))
T={}
def late(file,rx,new):
    f=ROOT/file
    if f.exists():
        s=f.read_text(); t=re.sub(rx,new,s)
        if t!=s: f.write_text(t); print('late',file)
late('tests/pipelines/confinement/test_confinement.py',r'\bbox\.found\b','box.available')
late('tests/serve/search/test_marks.py',r'setattr\(vectors, "found"','setattr(vectors, "moment_details"')
late('pipelines/index/highlights.py',r'`asked`','`words_of`')
late('pipelines/sandbox/child.py',r'order\.found\b','order.available'); late('pipelines/sandbox/child.py',r'    found: AvailableLayers','    available: AvailableLayers')
late('pipelines/sources/handles.py',r'(?m)^ANYBODY = Rights','ANY_CREATOR = Rights')
late('serve/search/relevance.py',r'\bindex\.found\(','index.moment_details(')
