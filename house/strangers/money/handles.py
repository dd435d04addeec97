from h import *
ids=[]
for hnd in ['ɑna','anɑ','Ana','ANA','áná','aná','ana ','ana.','аnа','апа','chıdi','ᴄhidi','ƅruno','bruņo','ｃhidi','chidi\u0307','ana\u00b7','a\u200bna','ａna','ana\u0301','chіdі','ϲhidi','сhіԁі','ꓚhidi','аnа','ɡoogle','ana\ufe0f','ана','bruno\u2024','ḃruno','ana/../chidi','-','ana;chidi','ana,chidi','ªna','aпa','ꭤna','chidi’','any','"any"','*','unknown']:
    r=adm.post('/v1/keys',json={'name':'hx','scopes':['ingest'],'creators':[hnd]})
    j=r.json(); print(repr(hnd),ascii(hnd),r.status_code, j.get('creators'), (j.get('detail')or'')[:120] if r.status_code!=201 else '')
    if 'id' in j: ids.append(j['id'])
for i in ids: adm.delete(f'/v1/keys/{i}')
