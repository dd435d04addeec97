"""S1 on 7812ba8 in process: questions cancelled half way take the pool's connections for good."""
import asyncio, os, random, logging
logging.disable(logging.CRITICAL)
import psycopg
from serve import readers
from serve.settings import SearchSettings
URL = os.environ["URL"]
async def main():
    search = SearchSettings()
    pool = readers.pool(URL, search)
    asked = readers.Readers(pool, [], search)
    await asked.start(); await asyncio.sleep(1)
    rng = random.Random(1)
    async def question(connection):
        cursor = await connection.execute("SELECT pg_sleep(0.003)")
        return await cursor.fetchone()
    async def one():
        task = asyncio.ensure_future(asked.ask(question))
        await asyncio.sleep(rng.uniform(0, 0.06))
        task.cancel()  # its caller hangs up
        await asyncio.sleep(rng.choice((0, 0, 0.001)))
        task.cancel()  # and its deadline comes
        await asyncio.wait([task])
    for number in range(60):
        await asyncio.gather(*(one() for _ in range(96)))
        if number % 10 == 9:
            stats = pool.get_stats()
            print(number + 1, "rounds of 96:", {k: stats.get(k) for k in ("pool_size", "pool_available", "requests_waiting")}, flush=True)
    await asyncio.sleep(10)
    stats = pool.get_stats()
    print("10 s later:", {k: stats.get(k) for k in ("pool_size", "pool_available", "requests_waiting")}, flush=True)
    try:
        print("asked again:", await asyncio.wait_for(asked.ask(question), 10))
    except Exception as error:
        print("asked again:", type(error).__name__, error)
asyncio.run(asyncio.wait_for(main(), 120))
