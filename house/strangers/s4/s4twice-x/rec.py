from lib import *
o=db('owner'); o.execute("update ledger.wallets set hold_until=null,held_for=null where creator_id=5"); o.execute("update media.videos set creator_id=5 where id=14")
