for i in $(seq 1 110); do grep -q '^rc ' /tmp/v/s4/demo_wallet.log && break; sleep 5; done; tail -5 /tmp/v/s4/demo_wallet.log; date -u
