"""Towns: honest worlds of several sizes, which differ in how much creators earn and how many people share a network.

Shares are assumptions, chosen so that viewers of every kind occur (a household, an office, a university, a carrier's NAT, a
key); the report says by town what follows from them. A network is what the ledger takes for one: an IPv4 /24 or an IPv6
/48. Knows no viewer and no creator.
"""

from __future__ import annotations

from dataclasses import dataclass

KEYED_SHARE = 0.4  # of all viewers; the others come without a key
# Of those without a key: behind a carrier's NAT, in a university, in an office; the others live two in a household.
CARRIER_SHARE, UNIVERSITY_SHARE, OFFICE_SHARE = 0.2, 0.1, 0.1
CARRIER_PEOPLE, OFFICE_PEOPLE = 600, 60  # of one network
WEEK = (1.0, 1.0, 1.0, 1.05, 1.15, 1.3, 1.2)  # how much people search on each of seven days
VIRAL_SHARE = 0.06  # of a town's looks a day, which a creator whom everybody talks about gets on the first day
VIRAL_DECAY = 0.6  # of what it was the day before
WEEKLY_TIMES = 10.0  # a usual day, of creators who publish once a week


@dataclass(frozen=True)
class Town:
    """The size of an honest world: how many viewers and creators it has."""

    name: str
    viewers: int
    creators: int = 200

    @property
    def topics(self) -> int:
        return max(3, self.creators // 20)

    @property
    def carriers(self) -> int:
        return max(1, round(self.viewers * (1 - KEYED_SHARE) * CARRIER_SHARE / CARRIER_PEOPLE))

    @property
    def offices(self) -> int:
        return max(1, round(self.viewers * (1 - KEYED_SHARE) * OFFICE_SHARE / OFFICE_PEOPLE))


# A usual creator of the village earns 0.04 PIX a day and the best one a third of a PIX; of the town 0.5 and 7 PIX; of the
# city 2 and 25 PIX, and 50 on the day when everybody talks about them. In a hamlet few creators earn at all.
TOWNS = (Town("hamlet", 300, creators=20), Town("village", 420), Town("town", 6_000), Town("city", 24_000))
POPULAR = Town("few creators and many people", 800, creators=20)  # of no seed: who pads has something to pad here
OF_SEEDS = ("village", "town", "hamlet", "city", "town", "village", "hamlet", "town")


def of_seed(seed: int) -> Town:
    """Return the town of a seed; of eight seeds in a row two are hamlets, two villages, three towns and one is the city."""
    name = OF_SEEDS[seed % len(OF_SEEDS)]
    return next(town for town in TOWNS if town.name == name)
