import os,sys
os.environ['RAY_AUTH_MODE']=sys.argv[2] if len(sys.argv)>2 else 'disabled'
import grpc
for p in (6382,21966,21766,21866,21466):
    try:
        ch=grpc.insecure_channel(f'127.0.0.1:{p}'); grpc.channel_ready_future(ch).result(timeout=3); print(p,'grpc connects')
    except Exception as e: print(p,repr(e)[:100])
import ray
if sys.argv[1]=='gcs':
  from ray._raylet import GcsClient
  try:
    c=GcsClient(address='127.0.0.1:6382'); print('keys',c.internal_kv_keys(b'',namespace=b'job',timeout=5)[:3])
  except BaseException as e: print('GCS',repr(e)[:400])
else:
  # raw ray client RPC
  from ray.core.generated import ray_client_pb2 as pb, ray_client_pb2_grpc as g
  ch=grpc.insecure_channel('127.0.0.1:21966')
  st=g.RayletDriverStub(ch)
  for n,f in [('ClusterInfo',lambda: st.ClusterInfo(pb.ClusterInfoRequest(type=1),timeout=20,metadata=[('client_id','a'*32)])),('KVList',lambda: st.KVList(pb.KVListRequest(prefix=b''),timeout=20,metadata=[('client_id','a'*32)])),
     ('Init',lambda: st.Init(pb.InitRequest(job_config=b''),timeout=20,metadata=[('client_id','a'*32)]))]:
    try: print(n,str(f())[:300])
    except Exception as e: print(n,repr(e)[:300])
