"""What decoding has lost of a video, and what that means: judged over the whole of it, not over a chunk.

Pure arithmetic; knows no decoder and no table.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.media import Failure


@dataclass(frozen=True)
class Losses:
    """Of a chunk or of a whole video."""

    frames: int  # that the index names; 0: not known
    lost: int = 0  # of them, those that the decoder did not give
    concealed: int = 0  # those that it made up of what was left: players show them, moments are not made of them
    pictures: int = 1  # candidates for the picture of a moment

    def refusal(self, share_min: float) -> Failure | None:
        """Why the video cannot be kept; what is concealed counts as there."""
        if self.frames and self.frames - self.lost < share_min * self.frames:
            return Failure("damaged", f"{self.lost} of {self.frames} frames cannot be decoded", final=True)
        if self.frames and not self.pictures:
            return Failure("damaged", f"all of {self.frames} frames are damaged", final=True)
        return None

    def warning(self) -> str:
        """What people should know of a video that was kept; empty where nothing was lost."""
        said = [f"{self.lost} frames could not be decoded"] if self.lost else []
        said += [f"{self.concealed} frames are damaged"] if self.concealed else []
        return "; ".join(said)
