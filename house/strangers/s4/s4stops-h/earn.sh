#!/bin/bash
# earn.sh N query...: N searches from random addresses
N=$1; shift
for i in $(seq $N); do curl -s -o /dev/null -w '%{http_code} ' --interface 127.0.0.$((RANDOM%250+2)) -H "Cookie: x=$RANDOM" -G http://127.0.0.1:${HP:-8001}/v1/search --data-urlencode "q=${*}" --data "limit=5"; done; echo
