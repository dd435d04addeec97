import httpx, psycopg, json, sys, time, random, string
data = sys.argv[1]; ports = json.load(open(f"{data}/run/ports.json")); B = f"http://127.0.0.1:{ports['serve']}"
db = psycopg.connect(f"postgresql://pixr:{open(f'{data}/secrets/postgres').read().strip()}@127.0.0.1:{ports['postgres']}/pixr", autocommit=True)
money = lambda: db.execute("select count(*), coalesce(sum(amount),0) from ledger.transfers").fetchone() if cols else None
cols = [r[0] for r in db.execute("select column_name from information_schema.columns where table_schema='ledger' and table_name='transfers'")]
print(cols)
amount = "amount_pix" if "amount_pix" in cols else ("amount" if "amount" in cols else cols[-1])
money = lambda: db.execute(f"select count(*), coalesce(sum({amount}),0) from ledger.transfers").fetchone()
rng = random.Random(20261130)
nonsense = ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(5, 12))) for _ in range(25)]
nonsense += ["qqqqq", "xkcdzz", "blorptang", "fnurgle wop", "zzyzx krrp", "12345 98765", "0x7fffdead", "ghjkl;'", "wubbalub", "pfft brzk", "aaaaaaa", "!!??!!", "loremx ipsumx", "trrrb", "kjhgfd", "mnbvcxz poiuyt", "éàüöß", "żółćwq", "ъыьэщ", "ギャボベ", "一丁七万", "qwe rty uio", "x1y2z3", "vvvvv wwwww", "nmnmnm"]
absent = ["a wedding in a village church", "my grandmother's kitchen", "the stock market crash", "a submarine under the ice", "knitting a red scarf", "a chess tournament", "the eiffel tower at dusk", "a newborn in a hospital", "parallel parking lesson", "a violin concert", "the moon landing of 1969", "an election debate", "a plumber fixing a pipe", "skiing down a slope", "a courtroom trial", "how to tie a bowline", "the great wall of china", "milking a cow by hand", "a volcano erupting", "a traffic jam in mumbai", "repairing a bicycle chain", "a sushi chef at work", "penalty shootout final", "an oil painting by vermeer", "a beehive inspection", "rush hour in the subway", "the northern lights over tromso", "a robot vacuum cleaner", "a graduation ceremony", "baking sourdough bread", "an airplane cockpit", "a lighthouse in a storm", "harvesting wheat", "a barbershop haircut", "laying bricks", "a school classroom", "a flooded street", "the berlin wall falling", "a scuba diver with a turtle", "a tractor ploughing", "installing a window", "a ballet rehearsal", "a desert caravan", "blowing glass", "an auction of antiques", "folding laundry", "a coal mine", "the queen's speech", "a marathon finish line", "an ultrasound scan"]
assert len(nonsense) == 50 and len(absent) == 50
c = httpx.Client(base_url=B, timeout=30); c.get("/")
def ask(qs):
    hit = 0
    for q in qs:
        while (r := c.get("/v1/search", params={"q": q})).status_code in (429, 503): time.sleep(0.5)
        j = r.json()
        if r.status_code != 200: print("  ", q, r.status_code, j.get("code")); continue
        if j.get("nothing_matches"): hit += 1; assert not j["moments"]
        else: print("  shown:", q, [(m["title"], m["relevance_ppm"]) for m in j["moments"]], j.get("degraded"))
        time.sleep(0.05)
    return hit
a = money(); n = ask(nonsense); time.sleep(20); b = money(); print("nonsense: nothing matches", n, "of 50; ledger before and after", a, b)
m = ask(absent); time.sleep(20); print("absent: nothing matches", m, "of 50; ledger after", money())
t = c.get("/v1/videos?limit=50").json()["videos"]
ok = 0
for v in t:
    j = c.get("/v1/search", params={"q": f'"{v["title"]}"', "intent": "typing", "limit": 50}).json(); ok += v["id"] in {x["video_id"] for x in j["moments"]}
print("exact titles found:", ok, "of", len(t))
