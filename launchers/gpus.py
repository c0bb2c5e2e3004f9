"""The GPUs of this machine, counted and measured without importing torch."""

import ctypes
import glob
import os


def visible_gpus() -> list[str]:
    """NVIDIA devices of this machine as CUDA_VISIBLE_DEVICES names them, and as it leaves them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    return [str(number) for number in range(len(glob.glob("/dev/nvidia[0-9]*")))]


def gpu_memory_bytes() -> int | None:
    """Of the smallest NVIDIA device of this machine, from the driver's library; None without one."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    if nvml.nvmlInit_v2() != 0:
        return None
    try:
        count = ctypes.c_uint()
        nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        sizes = [_memory_of(nvml, number) for number in range(count.value)]
        return min((size for size in sizes if size), default=None)
    finally:
        nvml.nvmlShutdown()


def _memory_of(nvml: ctypes.CDLL, number: int) -> int:
    """Total bytes, 0 where the device does not tell."""
    device = ctypes.c_void_p()
    told = (ctypes.c_ulonglong * 3)()  # nvmlMemory_t: total, free, used
    if nvml.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(device)) != 0:
        return 0
    return told[0] if nvml.nvmlDeviceGetMemoryInfo(device, ctypes.byref(told)) == 0 else 0
