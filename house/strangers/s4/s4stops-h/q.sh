#!/bin/bash
# q.sh ROLE SQL...   (ROLE: owner serve jobs ledger reader)
S=/srv/stops/.pixr/secrets
case $1 in owner) U=pixr; F=postgres;; *) U=pixr_$1; F=postgres_$1;; esac
shift
PGPASSWORD=$(cat $S/$F) exec psql -X -h 127.0.0.1 -p ${PORT:-5433} -U $U ${DB:-pixr} -c "$@"
