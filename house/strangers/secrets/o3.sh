cd /tmp; export HOME=/tmp/pixrtest-home; mkdir -p $HOME
PY=/work/main/.venv/bin/python
ls -ld /dev/shm; ls -la /dev/shm | head -20
timeout 40 $PY - <<'P' 2>&1 | tail -5
import grpc
for p in (6382,21966,21766,21866,21466):
    try:
        ch=grpc.insecure_channel(f'127.0.0.1:{p}'); grpc.channel_ready_future(ch).result(timeout=3); print(p,'grpc connects')
    except Exception as e: print(p,repr(e)[:100])
P
timeout 60 $PY - <<'P' 2>&1 | tail -4
import os
os.environ['RAY_AUTH_MODE']='disabled'
import ray
from ray._raylet import GcsClient
try:
    c=GcsClient(address='127.0.0.1:6382'); print('keys',c.internal_kv_keys(b'',namespace=b'job',timeout=5)[:3])
except Exception as e: print('GCS',repr(e)[:300])
P
timeout 60 $PY - <<'P' 2>&1 | tail -4
import os
os.environ['RAY_AUTH_MODE']='disabled'
import ray
try:
    ray.init('ray://127.0.0.1:21966'); print('IN', ray.cluster_resources())
except Exception as e: print('CLIENT',repr(e)[:300])
P
