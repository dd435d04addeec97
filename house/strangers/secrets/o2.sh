c(){ echo "--- $*"; timeout 6 curl -s -m 5 -i "$@" | head -c ${N:-700}; echo; }
c http://127.0.0.1:24500/readyz
N=300 c http://127.0.0.1:24500/metrics
N=300 c -H 'X-Forwarded-For: 8.8.8.8' http://127.0.0.1:24500/metrics
N=300 c -H 'X-Forwarded-For: 127.0.0.1' http://127.0.0.1:8001/metrics
N=300 c -H 'Host: evil.example' http://127.0.0.1:8001/metrics
N=300 c -H 'Host: evil.example' -H 'Origin: http://evil.example' http://127.0.0.1:8001/readyz
N=300 c http://127.0.0.1:8266/api/jobs/
N=300 c http://127.0.0.1:8266/api/version
N=300 c http://127.0.0.1:8266/api/serve/applications/
N=300 c http://127.0.0.1:8266/api/cluster_status
N=300 c http://127.0.0.1:8266/nodes?view=summary
N=300 c http://127.0.0.1:8266/logs
N=300 c http://127.0.0.1:8266/api/v0/actors
N=300 c "http://127.0.0.1:8266/worker/traceback?pid=29619"
N=300 c http://127.0.0.1:8266/api/authenticate
N=300 c http://127.0.0.1:8266/api/authentication_mode
for q in /metrics /debug/pprof/ /debug/pprof/cmdline /debug/pprof/heap /debug/vars; do N=300 c http://127.0.0.1:9568$q; done
N=300 c http://127.0.0.1:9001/minio/health/live
N=300 c http://127.0.0.1:9001/minio/prometheus/metrics
N=300 c http://127.0.0.1:9001/minio/v2/metrics/cluster
N=300 c -H 'User-Agent: Mozilla/5.0' http://127.0.0.1:9001/minio/
N=400 c -X POST -H 'content-type: application/json' http://127.0.0.1:9001/minio/webrpc -d '{"id":1,"jsonrpc":"2.0","params":{"username":"a","password":"b"},"method":"web.Login"}'
N=400 c -X POST -H 'content-type: text/plain' -H 'Origin: http://evil.example' http://127.0.0.1:8900/ -d '{"jsonrpc":"2.0","id":1,"method":"getHealth"}'
N=400 c -X POST -H 'content-type: application/json' -H 'Host: evil.example' http://127.0.0.1:8900/ -d '{"jsonrpc":"2.0","id":1,"method":"getVersion"}'
N=400 c -X OPTIONS -H 'Origin: http://evil.example' -H 'Access-Control-Request-Method: POST' http://127.0.0.1:8900/
(printf 'INFO\r\n'; sleep 1) | timeout 3 nc 127.0.0.1 6381 | head -3
PGPASSWORD= /usr/bin/psql -h 127.0.0.1 -p 5433 -U pixr pixr -c 'select 1' 2>&1 | head
