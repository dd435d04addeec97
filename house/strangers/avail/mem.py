import time,subprocess,glob,os
root=27282
def tree():
    ps=subprocess.run(['ps','-eo','pid,ppid,rss,comm,args'],capture_output=True,text=True).stdout.splitlines()[1:]
    rows={}
    for l in ps:
        f=l.split(None,4); rows[int(f[0])]=(int(f[1]),int(f[2]),f[3],f[4] if len(f)>4 else '')
    keep={root}; ch=True
    while ch:
        ch=False
        for p,(pp,*_) in rows.items():
            if pp in keep and p not in keep: keep.add(p); ch=True
    return rows,keep
out=open('/tmp/stranger/avail/mem.log','a',buffering=1)
while True:
    rows,keep=tree()
    s={}
    for p in keep:
        if p not in rows: continue
        pp,rss,comm,args=rows[p]
        k='other'
        for n in('SearchApi','QueryEncoder','haproxy','valkey','redis-server','postgres','juicefs','ServeController','raylet','gcs_server'):
            if n in args or n in comm: k=n;break
        s[k]=s.get(k,0)+rss//1024
    out.write(time.strftime('%H:%M:%S ')+' '.join('%s=%d'%x for x in sorted(s.items()))+' load=%s\n'%os.getloadavg()[0])
    time.sleep(5)
