import psycopg,json,sys,urllib.request
pw=open('/srv/twice/.pixr/secrets/postgres_reader').read().strip()
c=psycopg.connect(f"host=127.0.0.1 port=5432 dbname=pixr user=pixr_reader password={pw}",autocommit=True)
for r in c.execute("select kind,party,owner,asset,balance from ledger.accounts order by 1,2,3"): print('acct',r)
mint=c.execute("select mint from ledger.chain").fetchone()[0]
def rpc(m,*p):
    return json.load(urllib.request.urlopen(urllib.request.Request('http://127.0.0.1:8899',json.dumps(dict(jsonrpc='2.0',id=1,method=m,params=list(p))).encode(),{'content-type':'application/json'}))).get('result')
for cid,w,p,s,h in c.execute("select w.creator_id,w.wallet,(select coalesce(sum(amount_pix),0) from ledger.payouts p where p.creator_id=w.creator_id),(select string_agg(distinct state,',') from ledger.payouts p join ledger.batches b on b.id=p.batch_id where p.creator_id=w.creator_id),w.hold_until from ledger.wallets w order by 1"):
    from solders.pubkey import Pubkey
    from spl.token.instructions import get_associated_token_address as ata
    r=rpc('getTokenAccountBalance',str(ata(Pubkey.from_string(w),Pubkey.from_string(mint))))
    amt=r['value']['amount'] if r else None
    print('creator',cid,w[:6],'planned+paid',p,s,'on chain',amt,'hold',h, '' if (amt is None and not p) or str(p)==str(amt) else '<<<<')
