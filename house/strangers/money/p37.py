from h import *
r=adm.get('/v1/creators/37/payouts?limit=8').json(); 
for p in r['payouts'][:8]: print(p['id'],p['amount_pix'],p['state'],p['planned_at'])
e=adm.get('/v1/creators/37/earnings').json(); print(e)
print(adm.get('/v1/creators/37/statement.csv').text[:900])
