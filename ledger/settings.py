"""The settings of the ledger: what an appearance pays (economics) and how payouts reach the chain (ledger).

Money is whole base units of PIX (6 decimals); shares are parts per million (`_ppm`). Defaults stand here and nowhere else;
configs/economics.toml repeats those that an operator is expected to choose. Imports nothing of ours.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import ClassVar

PPM = 1_000_000
PIX = 1_000_000  # base units in one PIX
AMOUNT_MAX = 2**63 - 1
HOLD_H_MAX = 24 * 366
PEOPLE_MAX = 1_000_000  # behind one network
CHALLENGE_MAX_S = 3600
DOMAIN = re.compile(r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[0-9]{1,5})?)?")
TRANSACTION_VERSIONS = ("auto", "v1", "legacy")
KEEP_D_MIN = 8  # days: rows younger than a week are never deleted


@dataclass(frozen=True)
class Economics:
    """Which appearances count, what they pay, and when earnings are paid out."""

    SECTION: ClassVar[str] = "economics"
    RETIRED: ClassVar[tuple[str, ...]] = (  # settings of an earlier release, which are ignored
        "captive_share_ppm", "captive_min_pix", "captive_viewers_min", "fan_in_share_ppm",
    )  # fmt: skip

    # An appearance of relevance 1.0 earns `rate_pix` base units; anonymous searches earn a share of that.
    rate_pix: int = 1000  # what an appearance of relevance 1.0 earns
    anonymous_weight_ppm: int = 0  # share of that which an appearance earns in a search without a key
    creator_share_ppm: int = 900_000  # the creator's share of it; the rest is the platform's part
    investors_share_ppm: int = 500_000  # of the platform's part, where the segment has investors

    # Upper bounds of one search and of one UTC day. 0 means no bound.
    search_appearances_max: int = 50  # appearances of one search that earn
    search_amount_max_pix: int = 50_000  # what one search earns all creators together
    viewer_day_max_pix: int = 500_000  # what one viewer's searches earn all creators together
    # The same of all anonymous viewers of one network (IPv4 /24, IPv6 /48) together.
    address_day_max_pix: int = 30_000_000
    segment_day_max_pix: int = 5_000_000  # what one segment earns
    creator_day_max_pix: int = 50_000_000  # what one creator earns
    repeat_after_s: int = 86_400  # in this time a segment earns once from the same viewer

    # How much of a creator's UTC day counts (formulas and an example: ledger/accrual/vouching.py). A source is an API key, or
    # all viewers without a key in one network. What does not count is taken back if it has not matured, else held.

    # Of what one source earns all creators in a day, this much is vouched for; 0: no review.
    source_day_pix: int = 80_000
    # "PREFIX = PEOPLE": networks of many people, for whom `source_day_pix` is multiplied. A prefix is one by which `[search]`
    # groups viewers (IPv4 /24, IPv6 /48).
    shared_networks: tuple[str, ...] = ()
    # Of what is not vouched for, this share of what is counts beside it: of the day, or of the mean of the seven days before
    # if that is more.
    beside_share_ppm: int = 600_000
    beside_pair_pix: int = 450_000  # and of it one source brings one creator at most this; 0: no bound
    fan_in_trust_s: int = 30 * 86_400  # for this long after a person has released such a hold
    fan_in_trust_ppm: int = 800_000  # the creator's share is this one, if it is more than `beside_share_ppm`

    # What a creator's day comes to above `velocity_ratio` times the best of the eight days before, and above
    # `velocity_min_pix`, is held until a person has looked at it (ratio 0: no day is).
    velocity_ratio: int = 5  # how many times the best of the eight days before; 0: no day is held
    velocity_min_pix: int = 5_000_000  # a day of up to this amount is not held

    # When earnings become payable, and how much is paid at once.
    maturity_s: int = 72 * 3600  # until earnings are payable; before that holds and reversals can take them back
    payout_min_pix: int = 5_000_000  # smallest payout
    payout_max_pix: int = 10_000_000_000  # largest payout of one creator at once
    payout_day_max_pix: int = 100_000_000_000  # all payouts that are planned in one UTC day
    # How long payouts wait after a change of wallet, and after a first one without a proof.
    wallet_hold_s: int = 72 * 3600
    wallet_domain: str = ""  # host or host:port by which browsers know this deployment; a wallet's proof is bound to it
    wallet_challenge_s: int = 600  # how long a challenge can be answered
    # How long payouts wait after a manifest has named a creator's first wallet, unless the creator confirms it.
    manifest_wallet_hold_h: int = 72

    # The schedule: payouts are planned in the first `payout_window_s` of every `payout_interval_s`, counted from midnight
    # UTC and `payout_offset_s` (daily from 02:00 to 03:00: 86_400, 3600, 7200). 0: whenever something is due.
    payout_interval_s: int = 0  # between schedules; 0: payouts are planned whenever something is due
    payout_window_s: int = 3600  # in which payouts are planned, at least 1 where there is a schedule
    payout_offset_s: int = 0  # after midnight UTC

    # A first payout opens the creator's token account: it must be worth more than that costs.
    account_cost_check: bool = False  # whether that is checked
    pix_per_sol: int = 0  # base units of PIX for one SOL
    pix_per_sol_at: str = ""  # RFC 3339: the time of that price
    pix_per_sol_max_age_s: int = 86_400  # while the price is older, no token account is opened

    def __post_init__(self) -> None:
        for name in ("anonymous_weight_ppm", "creator_share_ppm", "investors_share_ppm",
                     "beside_share_ppm", "fan_in_trust_ppm"):  # fmt: skip
            if not 0 <= getattr(self, name) <= PPM:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 to {PPM}")
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if isinstance(value, int) and not 0 <= value <= AMOUNT_MAX:
                raise ValueError(f"{name} is {value}, expected 0 to 2^63 - 1")
        if not 1 <= self.payout_min_pix <= self.payout_max_pix:
            raise ValueError("payout_min_pix must be 1 or more and at most payout_max_pix")
        if self.payout_interval_s and not 1 <= self.payout_window_s <= self.payout_interval_s:
            raise ValueError("payout_window_s must be 1 or more and at most payout_interval_s")
        if self.rate_pix > 10**9:
            raise ValueError("rate_pix is above 10^9, a thousand PIX for one appearance")
        self._check_wallets()
        if not all(1 <= people <= PEOPLE_MAX for people in self.people_by_network.values()):
            raise ValueError(f"shared_networks: expected 1 to {PEOPLE_MAX} people in each network")

    @property
    def people_by_network(self) -> dict[str, int]:
        """The number of people behind each shared network, by prefix in the form that replicas use.

        Raises:
            ValueError: an item is not of the form "PREFIX = PEOPLE".
        """
        people_by_network = {}
        for item in self.shared_networks:
            prefix, _, people = (part.strip() for part in item.partition("="))
            if not people.isdecimal():
                raise ValueError(f"shared_networks: {item!r} is not 'PREFIX = PEOPLE'")
            people_by_network[str(ipaddress.ip_network(prefix))] = int(people)
        return people_by_network

    def _check_wallets(self) -> None:
        if self.manifest_wallet_hold_h > HOLD_H_MAX:
            raise ValueError(f"manifest_wallet_hold_h is {self.manifest_wallet_hold_h}, expected 0 to {HOLD_H_MAX}")
        if not DOMAIN.fullmatch(self.wallet_domain):
            raise ValueError(f"wallet_domain is {self.wallet_domain!r}, expected host or host:port")
        if not 1 <= self.wallet_challenge_s <= CHALLENGE_MAX_S:
            raise ValueError(f"wallet_challenge_s is {self.wallet_challenge_s}, expected 1 to {CHALLENGE_MAX_S}")


@dataclass(frozen=True)
class LedgerSettings:
    """How the ledger works: the actor's pace, the spool, the chain."""

    SECTION: ClassVar[str] = "ledger"
    RETIRED: ClassVar[tuple[str, ...]] = ("orphan_after_s",)  # settings of an earlier release, which are ignored

    # The actor. It works at its own pace, in batches.

    # A custom resource of Ray, on the nodes that hold the ledger's credentials; empty: any node.
    node_resource: str = ""
    tick_interval_s: float = 0.5  # pause of each of its parts that has nothing to do
    reconcile_interval_s: float = 10.0  # between comparisons of the journal with the chain, and looks at what is open
    review_interval_s: float = 30.0  # between reviews of creators' days; or `maturity_s`, if that is less
    fold_appearances_max: int = 1_000_000  # appearances in one fold; each takes 350 bytes of memory while it is folded
    fold_batches_max: int = 5_000  # appearance batches in one fold
    payouts_per_plan_max: int = 10_000  # creators that one plan pays
    batches_live_max: int = 64  # batches that have not ended; while there are this many, no more are planned

    # Appearances: the spool, and how long a replica collects searches before it sends a batch.
    flush_interval_ms: int = 10  # how long a replica collects searches
    flush_searches_max: int = 100  # searches in one batch
    spool_file_max_mb: int = 64  # size at which a replica begins the next spool
    # When more of the spool waits for the database, committed searches are refused (503).
    spool_backlog_max_mb: int = 512
    adopt_interval_s: float = 15.0  # between looks for the spools that ended replicas have left; 30 s at most
    # Readiness reports searches that wait while none was carried to the database for this long.
    carry_stalled_s: float = 10.0

    # The chain. An empty mint is the localnet's own, made at the first start.
    mint: str = ""  # address of PIX on the chain
    decimals: int = 6  # decimals of the mint
    treasury_key: str = "treasury.json"  # file under secrets/, an absolute path, or unix:PATH of a remote signer
    gas_key: str = ""  # key of the wallet that pays fees; empty: the treasury pays its own
    transaction_version: str = "auto"  # "v1" or "legacy"; "auto" is v1 where the chain takes it
    # "package.module:function", asked about recipients before they are paid (see ledger/risk/screening.py); empty: none.
    screening: str = ""
    # Whether the transaction of a batch of payouts makes an account, so that it cannot land twice.
    marker_accounts: bool = True
    # Until its rent is reclaimed; must be longer than the age of any backup that may be restored.
    marker_retention_s: int = 30 * 86_400
    reclaim_min: int = 20  # markers, from which on a transaction that reclaims their rent is worth its fee
    reclaim_pause_s: float = 600.0  # after the chain has refused such a transaction
    priority_fee_lamports: int = 0  # added to the fee of a transaction
    compute_margin_ppm: int = 100_000  # share of compute units that a transaction may use above those of its trial
    rpc_timeout_s: float = 10.0  # for a call of a node
    rpc_requests_per_s: float = 200.0  # calls of each node, by all parts of the ledger together
    resend_interval_s: float = 2.0  # until a transaction that has no end yet is sent again
    # Whether a second RPC node, if there are two, must confirm the end of a batch and a deposit.
    second_opinion: bool = True
    # The money of a batch goes back to its creators only when its youngest expired transaction is this old by the database's
    # clock, no matter what heights nodes report: 150 blocks at the slowest realistic rate.
    give_back_after_s: float = 600.0

    # Orders (see ledger/orders/orders.py), and anchors of the journal.
    orders_by_two: bool = False  # whether a second administrator must approve an order before it is carried out
    order_expires_s: int = 72 * 3600  # how long an order waits for its approval
    # Between anchors of the journal in the object store (ledger/audit/anchors.py); 0: none.
    anchor_interval_s: float = 3600.0

    # Things that are open for longer are shown by the log, the audit, `pixr status` and /metrics (see ledger/audit/ages.py).
    batch_open_max_s: float = 6 * 3600.0  # a batch of payouts that has not ended
    stop_open_max_s: float = 7 * 86_400.0  # a freeze or hold that is not released, a batch that is set aside
    order_open_max_s: float = 86_400.0  # an order or a resolution that is not carried out
    work_open_max_s: float = 3600.0  # searches to fold, earnings to mature, unknown transactions, a chain not compared

    # How many days tables keep their rows (0: for ever); after that rows are archived, or deleted (see ledger/archive).

    # Where archived rows lie; empty: the bucket of [s3]. One of its own, with versions or a lock, is out of reach of
    # replicas.
    archive_bucket: str = ""
    folds_keep_d: int = 30  # appearance batches, with the outcome of each appearance
    journal_keep_d: int = 90  # postings
    payments_keep_d: int = 400  # batches and payouts that have ended; the chain's history; suspicions and leaps
    idempotency_keep_d: int = 30  # after that the same Idempotency-Key counts as a new one
    reconciliations_keep_d: int = 30  # those that agreed
    keep_interval_s: float = 60.0  # pause while no row is due

    # The localnet: a chain on this machine, for development.
    localnet_slot_ms: int = 100  # between blocks
    localnet_pool_pix: int = 1_000_000_000  # what `reward_pool` is funded with: 1,000 PIX
    localnet_treasury_lamports: int = 100_000_000_000  # what the treasury is funded with, and the wallet that pays fees

    def __post_init__(self) -> None:
        if self.transaction_version not in TRANSACTION_VERSIONS:
            known = ", ".join(TRANSACTION_VERSIONS)
            raise ValueError(f"transaction_version is {self.transaction_version!r}, expected one of {known}")
        for name in ("tick_interval_s", "reconcile_interval_s", "review_interval_s", "rpc_timeout_s", "rpc_requests_per_s",
                     "resend_interval_s", "adopt_interval_s", "carry_stalled_s", "batch_open_max_s",
                     "stop_open_max_s", "order_open_max_s", "work_open_max_s"):  # fmt: skip
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0")
        for name in ("fold_appearances_max", "fold_batches_max", "payouts_per_plan_max", "batches_live_max", "reclaim_min",
                     "flush_interval_ms", "flush_searches_max", "spool_file_max_mb", "localnet_slot_ms",
                     "order_expires_s"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more")
        if (
            self.marker_retention_s < 0
            or self.localnet_pool_pix < 0
            or self.localnet_treasury_lamports < 0
            or self.priority_fee_lamports < 0
            or self.give_back_after_s < 0
            or self.reclaim_pause_s < 0
            or self.anchor_interval_s < 0
        ):
            raise ValueError("amounts and times must not be negative")
        self._check_keeping()

    def _check_keeping(self) -> None:
        for name in ("folds_keep_d", "journal_keep_d", "payments_keep_d", "idempotency_keep_d",
                     "reconciliations_keep_d"):  # fmt: skip
            if (value := getattr(self, name)) and value < KEEP_D_MIN:
                raise ValueError(f"{name} is {value}, expected 0 (for ever) or {KEEP_D_MIN} or more")
        if self.journal_keep_d and not 0 < self.folds_keep_d <= self.journal_keep_d:
            raise ValueError("journal_keep_d needs folds_keep_d, which must be no more: a fold goes before its entry")
        if self.keep_interval_s <= 0:
            raise ValueError("keep_interval_s must be above 0")
