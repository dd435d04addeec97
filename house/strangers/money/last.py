from h import *
# last check of 1: a keyed honest viewer and a keyless one, unique moment of chidi that was exhausted, versus one that was not
k=adm.post('/v1/keys',json={'name':'honest-%d'%time.time(),'scopes':['search']}).json()
a=settle(); 
for q in ('gorilla','lizard'):
    fresh().get('/v1/search',params={'q':q,'creator_id':'3'},headers=K(k['key'])); b=settle(); print('keyed',q,delta(a,b)); a=b
    fresh().get('/v1/search',params={'q':q,'creator_id':'3'}); b=settle(); print('keyless',q,delta(a,b)); a=b
adm.delete('/v1/keys/'+k['id'])
