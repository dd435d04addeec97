"""What decoding lost of a video, and whether the video can still be kept; judged over the whole video, not a chunk.

Pure arithmetic; knows no decoder and no table.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.media import Failure


@dataclass(frozen=True)
class Losses:
    """What decoding lost of a chunk or of a whole video."""

    frames: int  # in the file's index; 0: not known
    lost: int = 0  # frames that the decoder did not return
    concealed: int = 0  # frames whose lost parts the decoder filled in: players show them, moments do not use them
    pictures: int = 1  # candidates for the picture of a moment

    def refusal(self, share_min: float) -> Failure | None:
        """Return why the video cannot be kept, or None.

        It cannot if less than the share `share_min` of its frames was decoded (concealed frames count as decoded), or
        if it has no candidates.
        """
        if self.frames and self.frames - self.lost < share_min * self.frames:
            return Failure("damaged", f"{self.lost} of {self.frames} frames cannot be decoded", final=True)
        if self.frames and not self.pictures:
            return Failure("damaged", f"all of {self.frames} frames are damaged", final=True)
        return None

    def warning(self) -> str:
        """Return what people should know of a video that is kept; empty if nothing was lost."""
        parts = [f"{self.lost} frames could not be decoded"] if self.lost else []
        parts += [f"{self.concealed} frames are damaged"] if self.concealed else []
        return "; ".join(parts)
