PY=/work/main/.venv/bin/python
r(){ echo "### $(date +%T) $*"; timeout 100 $PY f3.py "$@"; sleep 10; }
q(){ awk -v a="$1" '$1>=a' quiet.log | awk '{n++; if($3!=200)b++; if($4>m)m=$4; s+=$4; if($4>4000)l++} END{print "quiet: n",n,"non200",b+0,">4s",l+0,"max",m,"mean",s/n}';  awk -v a="$1" '$1>=a' quiet.log | grep -v ' 200 ' | cut -c1-190|head -5; }
