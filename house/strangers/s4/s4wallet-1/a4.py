from h import *; from db import q
t=time.time()
print(pixr('payouts','order','correction','--from','reward_pool','--to','payable:creator:7','--amount','1000000','--reason','test funding')); print(time.time()-t)
print(q('owner','select * from ledger.orders'))
for bad in [('reward_pool','payable:creator:999999'),('payable:creator:7','payable:creator:8'),('reward_pool','payable:creator:٧'),('reward_pool','payable:creator:08'),('reward_pool','reward_pool'),('payable:creator:7','platform')]:
    amt='5' if bad[1]!='platform' else '999999999'
    if bad==('payable:creator:7','payable:creator:8'): amt='5000000'
    print(bad,amt,pixr('payouts','order','correction','--from',bad[0],'--to',bad[1],'--amount',amt,'--reason','mistake','--timeout','20'))
