"""The settings of the ledger: what an appearance pays (economics) and how payouts reach the chain (ledger).

Money is whole base units of PIX (6 decimals); shares are parts per million. Defaults are written here and nowhere
else; configs/economics.toml repeats those that an operator is expected to choose. Imports nothing of ours.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar

PPM = 1_000_000
PIX = 1_000_000  # base units in one PIX
AMOUNT_MAX = 2**63 - 1
HOLD_H_MAX = 24 * 366
PEOPLE_MAX = 1_000_000  # behind one network
CHALLENGE_MAX_S = 3600
DOMAIN = re.compile(r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[0-9]{1,5})?)?")
EXAMPLE_TIME = "2026-11-30T10:00:00Z"
TRANSACTION_VERSIONS = ("auto", "v1", "legacy")
KEEP_D_MIN = 8  # younger than a week nothing is deleted


@dataclass(frozen=True)
class Economics:
    """What counts, what it pays, and when it is payable."""

    SECTION: ClassVar[str] = "economics"
    RETIRED: ClassVar[tuple[str, ...]] = (  # of an earlier release: ignored
        "captive_share_ppm", "captive_min_pix", "captive_viewers_min", "fan_in_share_ppm",
    )  # fmt: skip

    # An appearance of relevance 1.0 earns `rate_pix` base units; anonymous searches earn a share of that.
    rate_pix: int = 1000
    anonymous_weight_ppm: int = 0
    creator_share_ppm: int = 900_000
    investors_share_ppm: int = 500_000  # of the platform's part, where the segment has investors

    # Bounds, per search and per UTC day. 0 means no bound.
    search_appearances_max: int = 50
    search_amount_max_pix: int = 50_000
    viewer_day_max_pix: int = 500_000
    address_day_max_pix: int = 30_000_000  # all anonymous viewers of one network (IPv4 /24, IPv6 /48) together
    segment_day_max_pix: int = 5_000_000
    creator_day_max_pix: int = 50_000_000
    repeat_after_s: int = 86_400  # one appearance per viewer and segment in this time

    # What counts (see ledger/vouching.py). A source is a key, or all viewers without one of a network. What it earns
    # all creators together in a UTC day counts up to `source_day_pix` (0: nobody is judged); so much for each of its
    # people, where a network is listed in `shared_networks`: "PREFIX = PEOPLE", the prefix being one that `[search]`
    # brings viewers together by (/24, IPv6 /48). Of the rest of a creator's day, of which one source brings them
    # `beside_pair_pix` at most (0: no bound), counts what is within `beside_share_ppm` of what counts by the former, or
    # has on the mean of the seven days before. What is above is taken back as far as it has not matured, and held where
    # it has. For so long after a person has released such a hold the creator's share is `fan_in_trust_ppm`.
    source_day_pix: int = 80_000
    shared_networks: tuple[str, ...] = ()
    beside_share_ppm: int = 600_000
    beside_pair_pix: int = 450_000
    fan_in_trust_s: int = 30 * 86_400
    fan_in_trust_ppm: int = 800_000

    # What a creator's day comes to above `velocity_ratio` times the best one of the eight days before, and above
    # `velocity_min_pix`, is held until somebody has looked (ratio 0: nothing is).
    velocity_ratio: int = 5
    velocity_min_pix: int = 5_000_000

    # When earnings become payable, and what is worth a transaction.
    maturity_s: int = 72 * 3600
    payout_min_pix: int = 5_000_000
    payout_max_pix: int = 10_000_000_000
    payout_day_max_pix: int = 100_000_000_000
    wallet_hold_s: int = 72 * 3600  # after a change of wallet, and after a first one without a proof
    wallet_domain: str = ""  # host or host:port, as browsers know this deployment: what a wallet's proof is bound to
    wallet_challenge_s: int = 600  # for a proof
    manifest_wallet_hold_h: int = 72  # after a manifest has named the first one, unless the creator confirms it

    # The schedule: payouts are planned in the first `payout_window_s` of every `payout_interval_s`, counted from midnight
    # UTC and `payout_offset_s` (daily from 02:00 to 03:00: 86_400, 3600, 7200). 0: whenever something is due.
    payout_interval_s: int = 0
    payout_window_s: int = 3600
    payout_offset_s: int = 0

    # A first payout opens the creator's token account: it must be worth more than that costs.
    account_cost_check: bool = False
    pix_per_sol: int = 0  # base units of PIX for one SOL
    pix_per_sol_at: str = ""  # when it was true, as RFC 3339 has it; without a zone it is UTC
    pix_per_sol_max_age_s: int = 86_400

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
        _ = self.priced_at
        if not all(1 <= people <= PEOPLE_MAX for people in self.people_by_network.values()):
            raise ValueError(f"shared_networks: expected 1 to {PEOPLE_MAX} people in each network")

    @property
    def priced_at(self) -> datetime | None:
        """When `pix_per_sol` was true; None where nobody has said.

        Raises:
            ValueError: `pix_per_sol_at` is no time.
        """
        if not self.pix_per_sol_at:
            return None
        try:
            said = datetime.fromisoformat(self.pix_per_sol_at)
        except ValueError as error:
            raise ValueError(
                f"pix_per_sol_at is {self.pix_per_sol_at!r}, expected a time like {EXAMPLE_TIME}"
            ) from error
        return said if said.tzinfo else said.replace(tzinfo=UTC)

    @property
    def people_by_network(self) -> dict[str, int]:
        """The shared networks, named as replicas name them, and how many people are behind each.

        Raises:
            ValueError: one is no "PREFIX = PEOPLE".
        """
        found = {}
        for each in self.shared_networks:
            prefix, _, people = (part.strip() for part in each.partition("="))
            if not people.isdecimal():
                raise ValueError(f"shared_networks: {each!r} is not 'PREFIX = PEOPLE'")
            found[str(ipaddress.ip_network(prefix))] = int(people)
        return found

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
    RETIRED: ClassVar[tuple[str, ...]] = ("orphan_after_s",)  # of an earlier release: ignored

    # The actor. It works at its own pace, in batches.
    node_resource: str = ""  # of Ray: what the nodes that hold the ledger's credentials have; empty: any node will do
    tick_interval_s: float = 0.5
    reconcile_interval_s: float = 10.0
    review_interval_s: float = 30.0  # or sooner, where earnings mature sooner
    fold_appearances_max: int = 1_000_000  # 350 bytes of memory each while they are folded
    fold_batches_max: int = 5_000
    payouts_per_plan_max: int = 10_000
    batches_live_max: int = 64  # of payouts, and as many of openings of token accounts

    # Appearances: the spool, and how long a replica gathers before it writes.
    flush_interval_ms: int = 10
    flush_searches_max: int = 100
    spool_file_max_mb: int = 64
    spool_backlog_max_mb: int = 512
    adopt_interval_s: float = 15.0  # between a replica's looks for spools whose owners are dead: their locks are free
    carry_stalled_s: float = 10.0  # without a batch carried while some wait: from then on readiness says so

    # The chain. An empty mint means: the localnet's own, made at the first start.
    mint: str = ""
    decimals: int = 6
    treasury_key: str = "treasury.json"  # under secrets/, an absolute path, or unix:PATH of a remote signer
    gas_key: str = ""  # empty: the treasury pays its own fees
    transaction_version: str = "auto"
    screening: str = (
        ""  # "package.module:function", asked about recipients before they are paid (see ledger/screening.py)
    )
    marker_accounts: bool = True
    marker_retention_s: int = 30 * 86_400  # longer than the age of any backup that may be restored
    reclaim_min: int = 20  # markers that make a reclaiming transaction worth its fee
    reclaim_pause_s: float = 600.0  # after one that the chain has refused
    priority_fee_lamports: int = 0
    compute_margin_ppm: int = 100_000
    rpc_timeout_s: float = 10.0
    rpc_requests_per_s: float = 200.0
    resend_interval_s: float = 2.0
    second_opinion: bool = True  # an end and a deposit need a second RPC, where there are two
    # What a batch was to pay goes back only when its youngest transaction that was given up is that old by the database's
    # clock, whatever nodes say of heights: 150 blocks at the slowest rate that is realistic.
    give_back_after_s: float = 600.0
    # After so many signings in 24 h of which a transaction has failed on chain without a recipient's fault payouts are frozen.
    failed_signings_day_max: int = 5
    # Orders (see ledger/orders.py): carried out only when a second administrator has approved them, within the time.
    orders_by_two: bool = False
    order_expires_s: int = 72 * 3600
    # So long a correction that is equal to one before is placed only with --again; 0: always.
    order_again_s: int = 86_400
    anchor_interval_s: float = 3600.0  # between heads of the journal that are kept in the object store; 0: none is
    # Whether the audit fails over heads that a release before has kept, without a digest: whoever could write to the bucket
    # before the first one with a digest was kept could make them up.
    anchors_without_digest: bool = True
    # What is open for longer is named by the log, the audit, `pixr status` and /metrics (see ledger/ages.py).
    batch_open_max_s: float = 6 * 3600.0  # a transaction without an end
    due_open_max_s: float = (
        2 * 86_400.0
    )  # of who could be paid and is in no plan; `payout_interval_s` where that is longer
    stop_open_max_s: float = 7 * 86_400.0  # a freeze or a hold that nobody has released, a batch that is set aside
    order_open_max_s: float = 86_400.0  # an order or a resolution that was not carried out
    work_open_max_s: float = 3600.0  # searches to fold, earnings to mature, unknown transactions, a chain not compared

    # How long tables keep what is old, in days (0: for ever); then it is archived, or deleted (see ledger/archive).
    archive_bucket: str = ""  # empty: that of [s3]; one of its own, with versions or a lock, is safe from replicas
    folds_keep_d: int = 30  # what was shown, and what became of it
    journal_keep_d: int = 90  # postings
    payments_keep_d: int = 400  # transactions and payouts that have ended; the chain's history; suspicions
    idempotency_keep_d: int = 30  # a client's key counts again after that
    reconciliations_keep_d: int = 30  # those that agreed
    keep_interval_s: float = 60.0  # between looks, while nothing is due

    # The localnet, for machines without a chain.
    localnet_slot_ms: int = 100
    localnet_pool_pix: int = 1_000_000_000  # what funds `reward_pool` there: 1,000 PIX
    localnet_treasury_lamports: int = 100_000_000_000

    def __post_init__(self) -> None:
        if self.transaction_version not in TRANSACTION_VERSIONS:
            known = ", ".join(TRANSACTION_VERSIONS)
            raise ValueError(f"transaction_version is {self.transaction_version!r}, expected one of {known}")
        for name in ("tick_interval_s", "reconcile_interval_s", "review_interval_s", "rpc_timeout_s", "rpc_requests_per_s",
                     "resend_interval_s", "adopt_interval_s", "carry_stalled_s", "batch_open_max_s",
                     "due_open_max_s", "stop_open_max_s", "order_open_max_s", "work_open_max_s"):  # fmt: skip
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0")
        for name in ("fold_appearances_max", "fold_batches_max", "payouts_per_plan_max", "batches_live_max", "reclaim_min",
                     "flush_interval_ms", "flush_searches_max", "spool_file_max_mb", "localnet_slot_ms",
                     "order_expires_s", "failed_signings_day_max"):  # fmt: skip
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
            or self.order_again_s < 0
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
