import psycopg,sys
S='/srv/wallet/.pixr/secrets/'
def con(role,autocommit=True):
    pw=open(S+('postgres' if role=='owner' else 'postgres_'+role)).read().strip()
    return psycopg.connect(host='127.0.0.1',port=5435,dbname='pixr',user={'owner':'pixr'}.get(role,'pixr_'+role),password=pw,autocommit=autocommit)
def q(role,sql,*a):
    with con(role) as k:
        cu=k.execute(sql,a or None); 
        return cu.fetchall() if cu.description else cu.statusmessage
if __name__=='__main__':
    try:
        r=q(sys.argv[1],sys.argv[2])
        for x in (r if isinstance(r,list) else [r]): print(x)
    except Exception as e: print('ERR',type(e).__name__,str(e).strip()[:600])
