while ! grep -q " end load" /tmp/v/chain23.log; do sleep 2; done
bash /tmp/v/stage_a.sh
(setsid bash /tmp/v/stage_user.sh >/dev/null 2>&1 &)
sleep 20
bash /tmp/v/stage_c.sh > /tmp/v/stage_c.out 2>&1
bash /tmp/v/stage_b.sh > /tmp/v/stage_b.out 2>&1
