import csv,sys
from sol import *
mint=Pubkey.from_string('9AVkCwo4U9bTc2sf2xnfNftK94JzBkz4gqsaG3p4S5X2')
ana=Pubkey.from_string('EiuFUB2G9kRMGLRWqap7MBfWER3555gyh9VFQZheG3Qo')
w=[str(kp('m1').pubkey()),str(mint),'AGQTe5KFE4thJXuUiQSemVmAyUjR2k7ZGi7Bqtvjg7Ch',str(TOK),str(ata(ana,mint)),str(Pubkey.find_program_address([b'x'],TOK)[0])]
rows=list(csv.DictReader(open('vid/manifest.csv')))
for i,r in enumerate(rows): r['creator']=f'm{i+1}'; r['wallet']=w[i]
wr=csv.DictWriter(open('vid/manifest.csv','w'),rows[0].keys()); wr.writeheader(); wr.writerows(rows)
