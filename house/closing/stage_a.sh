log() { echo "$(date +%T) $* load $(cut -d' ' -f1-3 /proc/loadavg)" >> /tmp/v/chain23.log; }
for n in $(env | sed -n 's/^\(PIXR_[A-Z_]*\)=.*/\1/p'); do unset $n; done
log reason; bash /tmp/v/reason.sh /work/wt-run > /tmp/v/reason.log 2>&1; log "reason rc $?"
log rate; bash /tmp/v/rate.sh fa88ea3 10 2 > /tmp/v/rate.log 2>&1; log "rate rc $?"
