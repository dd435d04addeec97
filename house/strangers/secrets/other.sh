id
ls -la /tmp/str-b 2>&1 | head -3
for u in $(pgrep -u root); do
 e=$(tr '\0' '\n' < /proc/$u/environ 2>/dev/null | head -3); [ -n "$e" ] && echo "env of $u readable"
done
ps axo pid,args -ww | grep -iE 'password|secret|token|key=' | grep -v grep | cut -c1-300
for p in 5433 6381 9001 9568 8266 8900 6382 21366 21466 21566 21666 21766 21866 21966 24500 ; do
 printf "%s: " $p; timeout 4 curl -s -m 3 -o /tmp/o.$p -w '%{http_code} %{size_download}\n' http://127.0.0.1:$p/ ; head -c 200 /tmp/o.$p 2>/dev/null; echo; rm -f /tmp/o.$p
done
