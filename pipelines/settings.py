"""The settings of ingest: how videos are cut, sampled, limited and retried, and which model embeds them.

Defaults are written here and nowhere else; units stand last in the names. Knows no environment and imports nothing of
ours, so that reading the settings costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

MODES = ("frames", "key-frames", "interval")
DURATION_MOST_S = 2_000_000  # times are milliseconds in 32 bits
CALIBRATED, PPM = -1, 1_000_000


@dataclass(frozen=True)
class ModelSettings:
    """The encoder: a bundled model, a folder in open_clip's format, `architecture/tag` or `hf-hub:…`.

    `allowed` are other models that a job may ask for. `threads` 0 leaves the number to PyTorch; `device` is auto, cpu,
    cuda or cuda:N.
    """

    SECTION: ClassVar[str] = "model"
    name: str = "pixr-emoji"
    allowed: tuple[str, ...] = ()
    device: str = "auto"
    threads: int = 0
    compile: bool = False  # the image tower of ingest by torch.compile: a minute at the start of each actor
    # From this cosine on moments show the same pictures: of several videos one earns, and in one video they keep the time of
    # the earliest. -1: as the model is calibrated; 0: so, too, and all earn. Half a cosine is of the same pictures by no model.
    copies_cosine_ppm: int = CALIBRATED

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name must not be empty")
        if self.threads < 0:
            raise ValueError(f"threads is {self.threads}, expected 0 (automatic) or more")
        if self.copies_cosine_ppm not in (CALIBRATED, 0) and not PPM // 2 < self.copies_cosine_ppm <= PPM:
            expected = f"above {PPM // 2} to {PPM}, 0 or {CALIBRATED}"
            raise ValueError(f"copies_cosine_ppm is {self.copies_cosine_ppm}, expected {expected}")

    def same(self, calibrated: float) -> float:
        """The cosine from which on moments show the same pictures, to a model that is calibrated so."""
        return self.copies_cosine_ppm / PPM if self.copies_cosine_ppm > 0 else calibrated


@dataclass(frozen=True)
class IngestSettings:
    """Everything from an S3 object to rows of segments."""

    SECTION: ClassVar[str] = "ingest"

    # What becomes a moment.
    mode: str = "frames"  # "key-frames" for huge back catalogues, "interval" for moments of one length
    sample_interval_ms: int = 1000
    shot_min_ms: int = 1000
    shot_max_ms: int = 12_000
    fixed_segment_ms: int = 5000  # in the modes that look for no cuts
    thumbnail_side_px: int = 216  # the shorter side
    earlier_moments_max: int = 20_000  # of a video, by all models: what it showed before, so that it keeps its time
    frame_vectors: bool = False  # keep in S3 what moments are made of, so that they can be made anew without decoding

    # How the work is spread. A chunk ends at the first key frame after this much video.
    chunk_ms: int = 60_000
    decoder_cpus: float = 1.0
    decoders_max: int = 0  # 0: as many as there are CPUs
    embedders_min: int = 1
    embedders_max: int = 1
    embedder_cpus: float = 0.5
    embedder_gpus: float = 0.0
    embed_batch_frames: int = 32
    niceness: int = 10  # of the workers, 0 to 19 (nice(2)): a job leaves the CPU to searches on the same machine
    object_store_share: float = 0.5  # of the object store, for frames on their way; Ray Data takes half at most
    start_timeout_s: int = 600  # for a round's encoders to have a process each; none of its videos is begun before
    no_progress_timeout_s: int = 120  # of a round without a row or a sign of life
    step_timeout_s: int = 3600  # how long a file, a chunk, a batch or loading the model gives signs of life at most

    # What looking at a file, and decoding a chunk of it, may cost and do in the sandbox; what a file may be.
    probe_cpu_max_s: int = 120
    probe_timeout_s: int = 120
    probe_memory_max_mb: int = 3072
    probe_output_max_mb: int = 512  # its answer
    probe_file_max_mb: int = 1  # of each file that it writes: none, and in memory what libraries say
    probe_programs: tuple[str, ...] = ()  # that it may start
    decode_cpu_max_s: int = 900
    decode_timeout_s: int = 1200
    decode_memory_max_mb: int = 3072
    decode_output_max_mb: int = 512
    decode_file_max_mb: int = 512  # the copy of a chunk that decord reads
    decode_programs: tuple[str, ...] = ()
    sandbox_uid: int = 65_100  # and group: whom decoders run as where workers are root; 0: as the worker
    sandbox_threads_per_cpu: int = 128  # of all decoders of one user, where they have their own; 0: no limit
    sandbox_weaker_accepted: bool = (
        False  # to decode where the kernel has no Landlock or no seccomp (`pixr status` says)
    )
    pixels_max: int = 40_000_000  # 8K has 33 million
    duration_max_s: int = 86_400  # DURATION_MOST_S at most
    file_max_mb: int = 100_000
    decodable_share_min: float = 0.9  # of the declared frames of a file, and of those in its index; fewer: damaged

    # Scratch space for the files being decoded, one folder a machine.
    scratch_dir: str = ""  # empty: the system's temporary folder
    scratch_max_mb: int = 20_000
    scratch_free_min_mb: int = 512

    # Jobs at once, each with a driver of some 300 MB; the others stay queued.
    jobs_at_work_max: int = 4
    jobs_at_work_each_max: int = 2  # of those that speak for the same creators and no others

    # When to give up. A start is an attempt that was begun; one that a dying machine cut short is no failure.
    failures_max: int = 3
    starts_max: int = 12
    backoff_base_s: float = 1.0
    backoff_max_s: float = 60.0
    lease_s: int = 60
    submissions_max: int = 5
    watch_interval_s: float = 3.0
    waited_max_s: float = 3600.0  # for videos that rest or that other jobs are at, with nothing else to do
    handover_max_s: float = 60.0  # for Ray to take a submission, before it is taken for lost
    jobs_keep_d: int = 180  # days after which a job that has ended is forgotten; 0: never

    # What an hour costs, for the job's report.
    cpu_hour_usd: float = 0.04
    gpu_hour_usd: float = 1.0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode is {self.mode!r}, expected one of {', '.join(MODES)}")
        if not 0 < self.shot_min_ms <= self.shot_max_ms // 2:
            raise ValueError("shot_min_ms must be above 0 and at most half of shot_max_ms")
        if self.chunk_ms < 1000:
            raise ValueError(f"chunk_ms is {self.chunk_ms}, expected 1000 or more")
        if not 1 <= self.embedders_min <= self.embedders_max:
            raise ValueError("embedders_min must be 1 or more and at most embedders_max")
        if not 0.0 < self.object_store_share <= 0.5:
            raise ValueError("object_store_share must be above 0 and at most 0.5")
        if not 0 <= self.niceness <= 19:
            raise ValueError("niceness must be between 0 and 19")
        if not 0.0 <= self.decodable_share_min <= 1.0:
            raise ValueError("decodable_share_min must be between 0 and 1")
        if self.duration_max_s > DURATION_MOST_S:
            raise ValueError(f"duration_max_s is {self.duration_max_s}, expected {DURATION_MOST_S} or less")
        self._check_least()

    def _check_least(self) -> None:
        ones = ("sample_interval_ms", "fixed_segment_ms", "thumbnail_side_px", "embed_batch_frames", "lease_s",
                "probe_cpu_max_s", "probe_timeout_s", "probe_memory_max_mb", "probe_output_max_mb",
                "decode_cpu_max_s", "decode_timeout_s", "decode_memory_max_mb", "decode_output_max_mb",
                "probe_file_max_mb", "decode_file_max_mb",  # what libraries say is a file, too
                "pixels_max", "duration_max_s", "file_max_mb", "failures_max", "starts_max", "jobs_at_work_max",
                "jobs_at_work_each_max", "start_timeout_s", "no_progress_timeout_s", "step_timeout_s")  # fmt: skip
        zeros = ("sandbox_uid", "sandbox_threads_per_cpu", "waited_max_s", "jobs_keep_d", "earlier_moments_max")
        for least, names in ((1, ones), (0, zeros)):
            for name in names:
                if getattr(self, name) < least:
                    raise ValueError(f"{name} must be {least} or more")
