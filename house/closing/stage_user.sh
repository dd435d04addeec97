log() { echo "$(date +%T) $* load $(cut -d' ' -f1-3 /proc/loadavg)" >> /tmp/v/chain23.log; }
for n in $(env | sed -n 's/^\(PIXR_[A-Z_]*\)=.*/\1/p'); do unset $n; done
log suite; rm -f /home/pixrtest/fails.log; bash /tmp/v/suite_user.sh fa88ea3 /tmp/v/suite.log; log "suite $(tail -1 /tmp/v/suite.log)"
