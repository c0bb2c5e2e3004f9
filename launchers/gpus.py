"""The GPUs of this machine, counted without importing torch."""

import glob
import os


def visible_gpus() -> list[str]:
    """NVIDIA devices of this machine as CUDA_VISIBLE_DEVICES names them, and as it leaves them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    return [str(number) for number in range(len(glob.glob("/dev/nvidia[0-9]*")))]
