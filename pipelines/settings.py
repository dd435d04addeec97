"""The settings of ingest: how videos are cut, sampled, limited and retried, and which model embeds them.

Defaults are written here and nowhere else; units stand last in the names. Knows no environment and imports nothing of
ours, so that reading the settings costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

MODES = ("frames", "key-frames", "interval")
DURATION_MOST_S = 2_000_000  # times are milliseconds in 32 bits


@dataclass(frozen=True)
class ModelSettings:
    """The encoder: a bundled model, a folder in open_clip's format, `architecture/tag` or `hf-hub:…`."""

    SECTION: ClassVar[str] = "model"
    name: str = "pixr-emoji"  # which encoder: one of the forms above
    allowed: tuple[str, ...] = ()  # other models that a job may ask for
    device: str = "auto"  # where it runs: auto, cpu, cuda or cuda:N
    threads: int = 0  # threads of PyTorch; 0: PyTorch decides
    compile: bool = False  # the image tower of ingest by torch.compile: a minute at the start of each actor

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name must not be empty")
        if self.threads < 0:
            raise ValueError(f"threads is {self.threads}, expected 0 (automatic) or more")


@dataclass(frozen=True)
class IngestSettings:
    """How ingest turns objects in S3 into segments."""

    SECTION: ClassVar[str] = "ingest"

    # What becomes a moment.
    mode: str = "frames"  # "frames"; "key-frames" for huge back catalogues; "interval" for moments of one length
    sample_interval_ms: int = 1000  # one frame in each interval is embedded, and one after each cut
    shot_min_ms: int = 1000  # least length of a shot
    shot_max_ms: int = 12_000  # greatest length; a longer shot is divided into equal parts
    fixed_segment_ms: int = 5000  # length of moments in the modes that look for no cuts
    thumbnail_side_px: int = 216  # shorter side of a thumbnail
    frame_vectors: bool = False  # keep in S3 what moments are made of, to make them again without decoding

    # How the work is spread.
    chunk_ms: int = 60_000  # video in a chunk, to the next key frame; less for frames larger than two of Full HD
    decoder_cpus: float = 1.0  # logical CPUs of a task that decodes
    decoders_max: int = 0  # tasks that decode at once; 0: as many as there are CPUs
    embedders_min: int = 1  # actors that embed, at least
    embedders_max: int = 1  # actors that embed, at most
    embedder_cpus: float = 0.5  # logical CPUs of each of them
    embedder_gpus: float = 0.0  # GPUs of each of them; a share of one is possible
    embed_batch_frames: int = 32  # frames that the model is given at once
    niceness: int = 10  # of the workers, 0 to 19 (nice(2)): a job leaves the CPU to searches on the same machine
    object_store_share: float = 0.5  # of the object store, for frames on their way; Ray Data takes half at most
    start_timeout_s: int = 600  # for a round's encoders to start; its videos are begun after that
    no_progress_timeout_s: int = 120  # of a round without a row or a sign of life
    step_timeout_s: int = 3600  # for fetching a file, decoding a chunk, encoding a batch or loading the model

    # Limits of probing a file and of decoding a chunk in the sandbox, and of files that are accepted.
    probe_cpu_max_s: int = 120  # probing: CPU time
    probe_timeout_s: int = 120  # probing: time by the clock
    probe_memory_max_mb: int = 3072  # probing: memory besides what was loaded before it and the answer
    probe_output_max_mb: int = 512  # probing: size of the child's answer
    probe_file_max_mb: int = 1  # probing: size of each file that the child writes, as libraries do to standard error
    # Probing: programs that the child may start; with any, it may also make code, and memory that no limit counts.
    probe_programs: tuple[str, ...] = ()
    decode_cpu_max_s: int = 900  # decoding: CPU time
    decode_timeout_s: int = 1200  # decoding: time by the clock
    decode_memory_max_mb: int = 3072  # decoding: memory besides what was loaded before it and the answer
    decode_output_max_mb: int = 512  # decoding: size of the child's answer
    decode_file_max_mb: int = 512  # decoding: size of each file that the child writes; decord reads a copy of the chunk
    # Decoding: programs that the child may start; with any, it may also make code, and memory that no limit counts.
    decode_programs: tuple[str, ...] = ()
    sandbox_uid: int = 65_100  # user and group that decoders run as where workers are root; 0: the worker's own
    # For all decoders of a machine together, where the kernel counts their threads apart from others'; 0: no limit.
    sandbox_threads_per_cpu: int = 128
    # Whether to decode where the kernel has no Landlock or no seccomp (`pixr status` says so).
    sandbox_weaker_accepted: bool = False
    pixels_max: int = 40_000_000  # size of a frame; 8K has 33 million
    duration_max_s: int = 86_400  # length of a video
    file_max_mb: int = 100_000  # size of a video's file
    # Least share that can be decoded of a file's declared frames, and of those in its index.
    decodable_share_min: float = 0.9

    # Scratch space for the files being decoded, one folder a machine.
    scratch_dir: str = ""  # where the folder lies; empty: in the system's temporary folder
    scratch_max_mb: int = 20_000  # all files in it together
    scratch_free_min_mb: int = 512  # what must stay free on its disk

    # Jobs at once, each with a driver of some 300 MB; the others stay queued.
    jobs_at_work_max: int = 4  # jobs at once
    jobs_at_work_each_max: int = 2  # of the jobs that speak for exactly the same creators

    # When to give up. A start is an attempt that was begun; if a dying machine cut it short, it is not a failure.
    failures_max: int = 3  # failures of a video, after which it is quarantined
    starts_max: int = 12  # starts of a video, after which it is quarantined
    backoff_base_s: float = 1.0  # a video whose attempt has failed rests for a random time of up to twice this
    backoff_max_s: float = 60.0  # and for no longer than this
    lease_s: int = 60  # how long a driver that is silent keeps its videos
    submissions_max: int = 5  # how often a job whose driver has died is submitted again
    watch_interval_s: float = 3.0  # between checks of the jobs that have not ended
    waited_max_s: float = 3600.0  # for videos that rest or that other jobs hold, if there is nothing else to do
    handover_max_s: float = 60.0  # until Ray knows a submission; after that the submission counts as lost
    jobs_keep_d: int = 180  # days after which a job that has ended is deleted; 0: never

    # What an hour costs, for the job's report.
    cpu_hour_usd: float = 0.04  # price of one CPU for an hour
    gpu_hour_usd: float = 1.0  # price of one GPU for an hour

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
        """Check that no number is less than its least allowed value."""
        ones = ("sample_interval_ms", "fixed_segment_ms", "thumbnail_side_px", "embed_batch_frames", "lease_s",
                "probe_cpu_max_s", "probe_timeout_s", "probe_memory_max_mb", "probe_output_max_mb",
                "decode_cpu_max_s", "decode_timeout_s", "decode_memory_max_mb", "decode_output_max_mb",
                "probe_file_max_mb", "decode_file_max_mb",  # what libraries say is a file, too
                "pixels_max", "duration_max_s", "file_max_mb", "failures_max", "starts_max", "jobs_at_work_max",
                "jobs_at_work_each_max", "start_timeout_s", "no_progress_timeout_s", "step_timeout_s")  # fmt: skip
        zeros = ("sandbox_uid", "sandbox_threads_per_cpu", "waited_max_s", "jobs_keep_d")
        for least, names in ((1, ones), (0, zeros)):
            for name in names:
                if getattr(self, name) < least:
                    raise ValueError(f"{name} must be {least} or more")
