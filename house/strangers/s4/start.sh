#!/bin/bash
# start.sh COMMIT: three clones with a demo each
for n in twice stops wallet; do
  D=/srv/$n; rm -rf $D; git clone -q /work/main $D; git -C $D checkout -q --detach $1; rm -rf $D/.git; ln -s /work/main/.venv $D/.venv
  cat > $D/pixr <<P
#!/bin/bash
cd $D && PYTHONPATH=$D exec .venv/bin/python -m cluster.cli "\$@"
P
  chmod +x $D/pixr
  (cd $D && nice -n 5 ./pixr --config configs/demo.toml demo > /tmp/v/s4/demo_$n.log 2>&1; echo "rc $?" >> /tmp/v/s4/demo_$n.log)
done
