"""The packets of a file, read once: when each picture is shown, how long it stays, and where picture and sound end.

Times are those of presentation, on a player's clock. Nothing is decoded. Knows packets and clocks, not what a file is
to be refused for; see `probe`. Runs inside the sandbox.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from pipelines.decode import shown
from pipelines.decode.containers import Undecodable
from pipelines.decode.shown import FirstPictures, Row

PROGRAM_STREAMS = {"mpegts", "mpeg"}  # joined, cut and broadcast: their clocks are not to be trusted
JUMP_MIN_S = 1  # backwards; less is a muxer's carelessness
HELD_SHARE_MIN = 0.5  # of the pace; a last picture that claims less is one whose length nobody wrote
SOUND_TAIL_MS = 50  # of sound after the picture: what rounding up to whole packets leaves there
RATE_TOLERANCE = 0.005  # between the declared rate and the measured one; more, and the declared one is not true
RATE_UNKNOWN = 25.0  # of one picture
UNSTAMPED_SHARE_MAX = 0.1  # of pictures whose packet states no time; more, and the times are those of a steady pace
ENCRYPTED: Final = "encryption_info"  # PyAV's name of what stands beside an encrypted packet


@dataclass(frozen=True)
class Clock:
    """From a stream's own time stamps to milliseconds on a player's clock."""

    base: Fraction
    start: int  # the time stamp at which a player's clock shows 0

    def ms(self, pts: int) -> int:
        return int((pts - self.start) * 1000 * self.base.numerator // self.base.denominator)

    def all_ms(self, pts: NDArray[np.int64]) -> NDArray[np.int32]:
        """Of stamps whose first and last are within bounds (`PacketIndex`): nothing runs over then."""
        return ((pts - self.start) * 1000 * self.base.numerator // self.base.denominator).astype(np.int32)


def is_program_stream(container: InputContainer) -> bool:
    """Whether a file is of the kind that is broadcast and recorded."""
    return not PROGRAM_STREAMS.isdisjoint(container.format.name.split(","))


def clock_of(container: InputContainer, stream: VideoStream) -> Clock:
    """The clock starts with the container.

    Sound that is primed before 0 does not count; but where the 33 bits of a program stream's clock run over, FFmpeg
    gives what comes before that a time before 0.
    """
    base = stream.time_base or Fraction(1, 1000)
    start = container.start_time or 0
    if not is_program_stream(container):
        start = max(start, 0)
    return Clock(base, round(Fraction(start, av.time_base) / base))


class PacketIndex:
    """The packets of the picture, in the order of presentation. `frame_ms` rises strictly unless `repeats`.

    Raises:
        Undecodable: a time is further from the clock's start than a film may be long.
    """

    def __init__(self, rows: list[Row], clock: Clock, facts: Facts, duration_max_s: int) -> None:
        rows.sort(key=lambda row: row[0])
        if not facts.program_stream and 0 <= rows[0][0] < clock.start:  # FFmpeg takes the one that is stored first
            clock = Clock(clock.base, rows[0][0])
        _within(clock, rows[0][0], rows[-1][0], duration_max_s)
        pts = np.array([pts for pts, _ in rows], np.int64)
        self.repeats = bool(np.any(np.diff(pts) == 0))
        unstamped = facts.unstamped > UNSTAMPED_SHARE_MAX * len(rows)
        self.counted = facts.guessed or facts.jumps or unstamped or (facts.program_stream and self.repeats)
        if self.counted:
            step = facts.pace if unstamped and facts.pace > 0 else _step(pts)
            _within(clock, rows[0][0], rows[0][0] + step * (len(pts) - 1), duration_max_s)
            pts = pts[0] + np.arange(len(pts)) * step if unstamped else _rising(pts, step)
            _within(clock, int(pts[0]), int(pts[-1]), duration_max_s)
        self.pts = pts
        self.frame_ms = clock.all_ms(self.pts)
        self.keys = np.flatnonzero([key for _, key in rows]).astype(np.int32)
        self.facts = facts
        self.clock = clock
        # Matroska's length counts from 0, and so does FFmpeg's for MP4 in fragments; others' from the start.
        from_zero = facts.matroska or facts.mov
        self.reach_s = float(facts.reach_s() if from_zero else facts.reach_s() - clock.start * clock.base)

    @property
    def last_ms(self) -> int:
        """When the last picture begins."""
        return int(self.frame_ms[-1])


def too_long(duration_max_s: int) -> Undecodable:
    return Undecodable("too-long", f"the file is longer than {duration_max_s} s", final=True)


def _within(clock: Clock, first: int, last: int, duration_max_s: int) -> None:
    """Time stamps are looked at as exact numbers: as those of an array they run over, and look harmless."""
    longest_ms = duration_max_s * 1000
    if clock.ms(first) < -longest_ms or clock.ms(last) > longest_ms:
        raise too_long(duration_max_s)


def _step(pts: NDArray[np.int64]) -> int:
    """The usual step from one time to the next."""
    steps = np.diff(pts)
    return int(np.median(steps[steps > 0])) if np.any(steps > 0) else 1


def _rising(pts: NDArray[np.int64], step: int) -> NDArray[np.int64]:
    """Times that repeat are pushed back until none does: a step further each."""
    grid = np.arange(len(pts)) * step
    rising: NDArray[np.int64] = np.maximum.accumulate(pts - grid) + grid
    return rising


class Facts:
    """What the packets tell beside their times, and the time stamp that each one gets."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        names = container.format.name.split(",")
        self.program_stream = is_program_stream(container)
        self.matroska, self.avi, self.mov = "matroska" in names, "avi" in names, "mov" in names
        self.broken = False  # demuxing ended with an error
        self.discarded = False  # an edit list hides frames
        self.hidden = 0  # packets that hold only what other frames are made of
        self.open_gop = False  # frames shown before a key frame, but stored behind it
        self.changes = False  # of codec parameters on the way
        self.jumps = False  # the clock starts again: files were joined
        self.guessed = False  # the container states the order of storage alone
        self.pts_known = True
        self.timeless = 0  # pictures at the beginning, before any that has a time
        self.unstamped = 0  # packets that state no time at all
        self.pace = 0  # the length that the packets of the picture state most lately, in its time base
        self.headless = 0  # packets before the first picture that can be made: the file begins between two key frames
        self.encrypted = 0  # packets of the picture
        self.has_sound = False  # packets of it: a header may name a track that is empty
        self.ends: dict[int, int] = {}  # where the last packet of each stream ends, in its own time base
        self.picture_end: int | None = None  # likewise, of the pictures that are shown
        self._bases: dict[int, Fraction] = {
            each.index: each.time_base or Fraction(1, 1000) for each in container.streams
        }
        self._audio = {each.index for each in container.streams.audio}
        self._sounds: dict[int, int] = {}  # where each of them ends so far
        self._jump_min = JUMP_MIN_S / (stream.time_base or Fraction(1, 1000))
        self._last_key: int | None = None
        self._ended: int | None = None  # by the order of demuxing
        self._begun = False  # a picture has had a time
        self._shift = self._latest = 0

    def reach_s(self) -> Fraction:
        """Where the last packet of any stream ends, in seconds of the file's clock."""
        return max((end * self._bases[index] for index, end in self.ends.items()), default=Fraction(0))

    def sound_end_s(self) -> Fraction | None:
        """Where the last packet of the sound ends; None where there is none, or where the clock cannot say."""
        ends = (end * self._bases[index] for index, end in self._sounds.items())
        return None if self.jumps else max(ends, default=None)

    def see(self, packet: Any) -> None:
        """Any packet of any stream: how far it reaches."""
        stamp = packet.pts if packet.pts is not None else packet.dts
        index = packet.stream_index
        self.has_sound |= index in self._audio
        if stamp is None or index not in self._bases:
            return
        end = stamp + (packet.duration or 0)
        if end > self.ends.get(index, end - 1):
            self.ends[index] = end
        if index in self._audio:  # sound comes in order: one wrong time on the way is not where it ends
            self._sounds[index] = end

    def stamp(self, packet: Any) -> int:
        """When a packet's frame is shown, in the order of demuxing."""
        pts = self._unshifted(packet)
        self.unstamped += packet.pts is None and packet.dts is None
        self.pace = packet.duration or self.pace
        self.encrypted += packet.has_sidedata(ENCRYPTED)
        if packet.dts is not None:
            ended = packet.dts if self._ended is None else self._ended
            if self.program_stream and packet.dts + self._shift < ended - self._jump_min:
                self.jumps, self._shift = True, ended - packet.dts
            self._ended = packet.dts + self._shift + (packet.duration or 0)
        pts += self._shift
        if packet.is_keyframe:
            self._last_key = pts
        elif self._last_key is not None and pts < self._last_key:
            self.open_gop = True
        self._latest = pts
        end = pts + (packet.duration or 0)
        self.picture_end = end if self.picture_end is None else max(self.picture_end, end)
        return pts

    def _unshifted(self, packet: Any) -> int:
        self._begun |= packet.pts is not None or packet.dts is not None
        self.timeless += not self._begun
        if self.avi and packet.dts is not None:
            self.guessed |= packet.pts != packet.dts
            return int(packet.dts)
        if packet.pts is not None:
            return int(packet.pts)
        self.pts_known = False
        return int(packet.dts) if packet.dts is not None else self._latest + 1 - self._shift


def index_of(
    container: InputContainer, stream: VideoStream, duration_max_s: int, first: FirstPictures | None = None
) -> PacketIndex:
    """Read all packets; `first` is what a decoder has made of them.

    Raises:
        Undecodable: none of them holds a picture, or they are spread over more time than is allowed.
    """
    rows: list[Row] = []
    facts = Facts(container, stream)
    is_hidden = shown.HIDDEN.get(stream.codec_context.codec.canonical_name)
    try:
        for packet in container.demux():
            if not packet.size:
                continue
            facts.see(packet)
            if packet.stream_index != stream.index:
                continue
            if packet.is_discard:
                facts.discarded = True
            elif is_hidden and is_hidden(memoryview(packet)):
                facts.hidden += 1
            else:
                facts.changes |= bool(rows) and packet.has_sidedata("new_extradata")
                rows.append((facts.stamp(packet), packet.is_keyframe))
    except (av.error.FFmpegError, OSError):
        facts.broken = True
    if not rows:
        raise no_data()
    rows = _placed(rows, facts.timeless)
    if first and facts.program_stream and first.interlaced_pace:
        rows = shown.frames(rows, first.interlaced_pace)
    if first and first.pts is not None and not (facts.jumps or facts.guessed or facts.unstamped):
        rows, facts.headless = shown.from_first(rows, first.pts)
    return PacketIndex(rows, clock_of(container, stream), facts, duration_max_s)


def _placed(rows: list[Row], timeless: int) -> list[Row]:
    """Pictures without a time at the beginning stand just before the others, whose clock may show any hour there."""
    if timeless == len(rows):
        return rows
    first = min(pts for pts, _ in rows[timeless:])
    return [(first - timeless + at, key) for at, (_, key) in enumerate(rows[:timeless])] + rows[timeless:]


def no_data() -> Undecodable:
    """What is wrong with a file of which nobody can tell more than its header."""
    return Undecodable("damaged", "the file has a header but no picture data", final=True)


def frame_rate(stream: VideoStream, index: PacketIndex) -> float:
    """Frames a second: as declared where that is true, else as the times of the frames have it."""
    declared = float(stream.average_rate or stream.guessed_rate or 0)
    steps, span_ms = len(index.frame_ms) - 1, index.last_ms - int(index.frame_ms[0])
    if steps < 1 or span_ms < 1:
        return declared or RATE_UNKNOWN
    measured = steps * 1000 / span_ms
    close = abs(declared - measured) <= max(RATE_TOLERANCE * measured, _rounding(steps, span_ms))
    return declared if close else float(f"{measured:.5g}")


def _rounding(steps: int, span_ms: int) -> float:
    """By how much a rate may be off that was measured in whole milliseconds."""
    return steps * 1000 / max(1, span_ms - 1) - steps * 1000 / (span_ms + 1)


def duration_ms(container: InputContainer, stream: VideoStream, index: PacketIndex) -> int:
    """What plays: until the last picture has been shown for as long as it says, or the sound has ended."""
    end = index.last_ms + _held_ms(container, stream, index)
    sound_s = index.facts.sound_end_s()
    if sound_s is None:
        return end
    sound_ms, declared_ms = (
        int((sound_s - index.clock.start * index.clock.base) * 1000),
        _declared_ms(container, index),
    )
    if declared_ms >= 0:
        sound_ms = min(sound_ms, declared_ms)
    return sound_ms if sound_ms > end + SOUND_TAIL_MS else end


def _held_ms(container: InputContainer, stream: VideoStream, index: PacketIndex) -> int:
    """How long the last picture is shown: at least 1. What its packet says is true in MOV, a guess elsewhere."""
    pace, facts = _pace_ms(stream, index), index.facts
    if index.counted or not facts.pts_known or facts.picture_end is None:
        return pace
    held = index.clock.ms(facts.picture_end) - index.last_ms
    left = _declared_end_ms(container, index) - index.last_ms
    if (
        facts.mov and held > 0
    ):  # lengths are in the order of storage there: within a frame, what the header says is right
        return max(1, left) if 0 <= left <= held + pace else held
    if held >= max(1, HELD_SHARE_MIN * pace):
        return held
    return left if 0 < left < pace else pace


def _declared_ms(container: InputContainer, index: PacketIndex) -> int:
    """How long the file is by its own header; -1 where FFmpeg has estimated it."""
    if not container.duration or not (index.facts.mov or index.facts.matroska):
        return -1
    return int(container.duration * 1000 // av.time_base)


def _declared_end_ms(container: InputContainer, index: PacketIndex) -> int:
    """Where the picture ends by the header at the least, on a player's clock; below 0 where that does not say.

    Muxers of Matroska disagree on whether its length counts from 0 or from the first picture.
    """
    start_ms = int(index.clock.start * index.clock.base * 1000) if index.facts.matroska else 0
    return _declared_ms(container, index) - start_ms


def _pace_ms(stream: VideoStream, index: PacketIndex) -> int:
    """The usual time from one picture to the next."""
    steps = np.diff(index.frame_ms)
    rate = float(stream.average_rate or stream.guessed_rate or RATE_UNKNOWN)
    return max(1, round(float(np.median(steps)) if len(steps) else 1000 / rate))
