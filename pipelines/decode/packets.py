"""The packets of a file, read once: when each picture is shown and for how long, and where picture and sound end.

Times are presentation times on a player's clock. Nothing is decoded. Knows packets and clocks, not what a file is
refused for (see `probe`). Runs inside the sandbox.
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

PROGRAM_STREAMS = {"mpegts", "mpeg"}  # often joined or cut, so their clocks may jump
JUMP_MIN_S = 1  # backwards; smaller steps are muxers' inaccuracies
HELD_SHARE_MIN = 0.5  # of the pace; a last picture with less has a length that was not written
SOUND_TAIL_MS = 50  # sound after the picture that comes from rounding up to whole packets
RATE_TOLERANCE = 0.005  # share by which the declared frame rate may differ from the measured one
RATE_UNKNOWN = 25.0  # frames a second of a video of one picture
UNSTAMPED_SHARE_MAX = 0.1  # of packets without a time; with more, times are counted at a steady pace
ENCRYPTED: Final = "encryption_info"  # PyAV's name of the side data of encrypted packets


@dataclass(frozen=True)
class Clock:
    """Conversion of a stream's time stamps to milliseconds on a player's clock."""

    base: Fraction
    start: int  # the time stamp at which a player's clock shows 0

    def ms(self, pts: int) -> int:
        """Return the milliseconds of one time stamp."""
        return int((pts - self.start) * 1000 * self.base.numerator // self.base.denominator)

    def all_ms(self, pts: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the milliseconds of time stamps that `PacketIndex` has checked, so that nothing overflows.

        Args:
            pts: int64 (frames,), in the stream's time base.

        Returns:
            int32 (frames,), milliseconds.
        """
        return ((pts - self.start) * 1000 * self.base.numerator // self.base.denominator).astype(np.int32)


def is_program_stream(container: InputContainer) -> bool:
    """Whether the file is an MPEG transport or program stream, as broadcast and recorded."""
    return not PROGRAM_STREAMS.isdisjoint(container.format.name.split(","))


def clock_of(container: InputContainer, stream: VideoStream) -> Clock:
    """Return the clock, which starts where the container does.

    A negative start comes from the sound's priming and counts as 0. In a program stream it counts as it is: its 33-bit
    clock may overflow, and FFmpeg gives negative times to what comes before that.
    """
    base = stream.time_base or Fraction(1, 1000)
    start = container.start_time or 0
    if not is_program_stream(container):
        start = max(start, 0)
    return Clock(base, round(Fraction(start, av.time_base) / base))


class PacketIndex:
    """The packets of the video track in presentation order; `frame_ms` rises strictly unless `repeats`.

    Attributes:
        pts: int64 (frames,), times in the stream's time base.
        frame_ms: int32 (frames,), times in milliseconds.
        keys: int32 (key frames,), indices of the key frames.
        repeats: whether two packets state the same time.
        counted: whether packets state no usable times, so that frames are identified by their order.
        reach_s: end of the last packet of any stream, in seconds from where the container's length is counted.

    Raises:
        Undecodable: a time is further from the clock's start than a video may last.
    """

    def __init__(self, rows: list[Row], clock: Clock, facts: Facts, duration_max_s: int) -> None:
        """Order the packets by time, and correct times that cannot be right.

        Args:
            rows: Time stamp and key frame flag of each packet; sorted in place.
            clock: The container's clock.
            facts: What the packets tell besides their times.
            duration_max_s: Longest video that is accepted, in seconds.
        """
        rows.sort(key=lambda row: row[0])
        if not facts.program_stream and 0 <= rows[0][0] < clock.start:  # FFmpeg starts at the packet stored first
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
        # The length in Matroska, and FFmpeg's for fragmented MP4, counts from 0; that of others from the start.
        from_zero = facts.matroska or facts.mov
        self.reach_s = float(facts.reach_s() if from_zero else facts.reach_s() - clock.start * clock.base)

    @property
    def last_ms(self) -> int:
        """When the last picture begins, in milliseconds."""
        return int(self.frame_ms[-1])


def too_long(duration_max_s: int) -> Undecodable:
    """Return the error for a video longer than `duration_max_s`."""
    return Undecodable("too-long", f"the file is longer than {duration_max_s} s", final=True)


def _within(clock: Clock, first: int, last: int, duration_max_s: int) -> None:
    """Refuse times out of bounds. Compares Python's integers: in an array such times would overflow and look harmless."""
    longest_ms = duration_max_s * 1000
    if clock.ms(first) < -longest_ms or clock.ms(last) > longest_ms:
        raise too_long(duration_max_s)


def _step(pts: NDArray[np.int64]) -> int:
    """Return the median step between time stamps (frames,)."""
    steps = np.diff(pts)
    return int(np.median(steps[steps > 0])) if np.any(steps > 0) else 1


def _rising(pts: NDArray[np.int64], step: int) -> NDArray[np.int64]:
    """Return time stamps (frames,) with repeated ones moved on by a step each."""
    grid = np.arange(len(pts)) * step
    rising: NDArray[np.int64] = np.maximum.accumulate(pts - grid) + grid
    return rising


class Facts:
    """What the packets of a file tell besides their times; `stamp` also works out the time stamp of each picture."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        names = container.format.name.split(",")
        self.program_stream = is_program_stream(container)
        self.matroska, self.avi, self.mov = "matroska" in names, "avi" in names, "mov" in names
        self.broken = False  # demuxing ended with an error
        self.discarded = False  # an edit list hides frames
        self.hidden = 0  # packets of frames that are never shown, only referred to
        self.open_gop = False  # frames are shown before a key frame but stored behind it
        self.changes = False  # codec parameters change within the file
        self.jumps = False  # the clock restarts: files were joined
        self.guessed = False  # the container states decoding times alone
        self.pts_known = True
        self.timeless = 0  # packets at the beginning, before the first with a time
        self.unstamped = 0  # packets that state no time at all
        self.pace = 0  # the last stated duration of a video packet, in the stream's time base
        self.headless = 0  # packets before the first frame that can be decoded: the file begins between key frames
        self.encrypted = 0  # video packets
        self.has_sound = False  # audio packets were seen; a header may name an empty track
        self.ends: dict[int, int] = {}  # where the last packet of each stream ends, in its own time base
        self.picture_end: int | None = None  # where the last shown picture ends, in the video's time base
        self._bases: dict[int, Fraction] = {
            each.index: each.time_base or Fraction(1, 1000) for each in container.streams
        }
        self._audio = {each.index for each in container.streams.audio}
        self._sounds: dict[int, int] = {}  # where each audio stream ends so far
        self._jump_min = JUMP_MIN_S / (stream.time_base or Fraction(1, 1000))
        self._last_key: int | None = None
        self._ended: int | None = None  # where the last demuxed video packet ended
        self._begun = False  # a video packet had a time
        self._shift = self._latest = 0

    def reach_s(self) -> Fraction:
        """Return where the last packet of any stream ends, in seconds of the file's clock."""
        return max((end * self._bases[index] for index, end in self.ends.items()), default=Fraction(0))

    def sound_end_s(self) -> Fraction | None:
        """Return where the sound ends, in seconds; None without sound, or if the clock jumps."""
        ends = (end * self._bases[index] for index, end in self._sounds.items())
        return None if self.jumps else max(ends, default=None)

    def see(self, packet: Any) -> None:
        """Take a packet of any stream, and note where it ends."""
        stamp = packet.pts if packet.pts is not None else packet.dts
        index = packet.stream_index
        self.has_sound |= index in self._audio
        if stamp is None or index not in self._bases:
            return
        end = stamp + (packet.duration or 0)
        if end > self.ends.get(index, end - 1):
            self.ends[index] = end
        if index in self._audio:  # sound comes in order, so a single wrong time is not its end
            self._sounds[index] = end

    def stamp(self, packet: Any) -> int:
        """Return when the picture of a video packet is shown; packets must come in demuxing order."""
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
        """Return the stated or assumed time of a packet, before jumps of the clock are undone."""
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
    """Read all packets of a file.

    Args:
        container: The opened file.
        stream: Its video track.
        duration_max_s: Longest video that is accepted, in seconds.
        first: What decoding the first frames has shown, if they were decoded.

    Returns:
        The index of the video track.

    Raises:
        Undecodable: the track has no packets, or they spread over more than `duration_max_s`.
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
    """Give times to the first `timeless` pictures, which have none: the time stamps just before the earliest other."""
    if timeless == len(rows):
        return rows
    first = min(pts for pts, _ in rows[timeless:])
    return [(first - timeless + at, key) for at, (_, key) in enumerate(rows[:timeless])] + rows[timeless:]


def no_data() -> Undecodable:
    """Return the error for a file that has a header and no picture data."""
    return Undecodable("damaged", "the file has a header but no picture data", final=True)


def frame_rate(stream: VideoStream, index: PacketIndex) -> float:
    """Return frames a second: the declared rate if it agrees with the times of the frames, else the measured one."""
    declared = float(stream.average_rate or stream.guessed_rate or 0)
    steps, span_ms = len(index.frame_ms) - 1, index.last_ms - int(index.frame_ms[0])
    if steps < 1 or span_ms < 1:
        return declared or RATE_UNKNOWN
    measured = steps * 1000 / span_ms
    close = abs(declared - measured) <= max(RATE_TOLERANCE * measured, _rounding(steps, span_ms))
    return declared if close else float(f"{measured:.5g}")


def _rounding(steps: int, span_ms: int) -> float:
    """Return by how much a rate measured in whole milliseconds may be off."""
    return steps * 1000 / max(1, span_ms - 1) - steps * 1000 / (span_ms + 1)


def duration_ms(container: InputContainer, stream: VideoStream, index: PacketIndex) -> int:
    """Return how long the video plays, in milliseconds: until its last picture or its sound ends, if that is later."""
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
    """Return for how many milliseconds the last picture is shown, at least 1.

    That is the duration of its packet if it is plausible, else the rest of the declared length if that is shorter than
    the usual pace, else the usual pace. In MOV a plausible declared length goes first.
    """
    pace, facts = _pace_ms(stream, index), index.facts
    if index.counted or not facts.pts_known or facts.picture_end is None:
        return pace
    held_ms = index.clock.ms(facts.picture_end) - index.last_ms
    remaining_ms = _declared_end_ms(container, index) - index.last_ms
    if facts.mov and held_ms > 0:  # durations are stored in decoding order; within a frame the header's length is right
        return max(1, remaining_ms) if 0 <= remaining_ms <= held_ms + pace else held_ms
    if held_ms >= max(1, HELD_SHARE_MIN * pace):
        return held_ms
    return remaining_ms if 0 < remaining_ms < pace else pace


def _declared_ms(container: InputContainer, index: PacketIndex) -> int:
    """Return the length in the file's own header, in milliseconds; -1 if FFmpeg can only estimate it."""
    if not container.duration or not (index.facts.mov or index.facts.matroska):
        return -1
    return int(container.duration * 1000 // av.time_base)


def _declared_end_ms(container: InputContainer, index: PacketIndex) -> int:
    """Return the earliest time at which the picture can end by the header, in milliseconds on a player's clock.

    It is negative if the header states no length.

    Muxers of Matroska disagree on whether its length counts from 0 or from the first picture.
    """
    start_ms = int(index.clock.start * index.clock.base * 1000) if index.facts.matroska else 0
    return _declared_ms(container, index) - start_ms


def _pace_ms(stream: VideoStream, index: PacketIndex) -> int:
    """Return the usual time from one picture to the next, in milliseconds."""
    steps = np.diff(index.frame_ms)
    rate = float(stream.average_rate or stream.guessed_rate or RATE_UNKNOWN)
    return max(1, round(float(np.median(steps)) if len(steps) else 1000 / rate))
