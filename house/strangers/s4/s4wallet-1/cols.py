from db import *
for t in ['ledger.wallets','ledger.wallet_challenges','ledger.wallet_proofs','ledger.wallet_changes','ledger.orders','app.api_keys','app.principals','media.creators','ledger.holds','ledger.freezes','ledger.wallet_rules','ledger.owed']:
    print(t, q('owner',"select string_agg(column_name||' '||data_type,', ' order by ordinal_position) from information_schema.columns where table_schema||'.'||table_name=%s",t)[0][0])
    print('   serve:',q('owner',"select privilege_type,string_agg(column_name,',') from information_schema.column_privileges where grantee='pixr_serve' and table_schema||'.'||table_name=%s group by 1",t))
    print('   checks:',q('owner',"select pg_get_constraintdef(oid) from pg_constraint where conrelid=%s::regclass",t))
    print('   trig:',q('owner',"select tgname,pg_get_triggerdef(oid) from pg_trigger where tgrelid=%s::regclass and not tgisinternal",t))
