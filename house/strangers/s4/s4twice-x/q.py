import sys,psycopg
role=sys.argv[1]; sql=sys.argv[2]
sec={'owner':'postgres'}.get(role,'postgres_'+role)
pw=open('/srv/twice/.pixr/secrets/'+sec).read().strip()
for user in ([ 'pixr','postgres'] if role=='owner' else ['pixr_'+role,role,'pixr_'+role+'_login','me_'+role]):
    try:
        c=psycopg.connect(f"host=127.0.0.1 port=5432 dbname=pixr user={user} password={pw}",autocommit=True); break
    except Exception as e: err=e
else: print('LOGIN',err); sys.exit(1)
try:
    cur=c.execute(sql)
    if cur.description:
        print([d.name for d in cur.description])
        for r in cur.fetchmany(60): print(r)
    else: print(cur.statusmessage)
except Exception as e: print(type(e).__name__,e)
