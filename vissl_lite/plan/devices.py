"""What a GPU and its machine can do: the table behind estimates; a file may change it."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import yaml

from vissl_lite.engine.flops import TFLOPS
from vissl_lite.errors import ConfigError, did_you_mean
from vissl_lite.schema import conform, parameters_of

GIB = 2**30


@dataclass(frozen=True)
class Device:
    """One GPU in its machine.

    Attributes:
        memory: GiB that CUDA reports.
        reserved: GiB of it for the CUDA context, NCCL, cuDNN workspaces and fragmentation.
        tflops: dense 16-bit peak, 1e12 FLOP/s (data sheet).
        bandwidth: of its memory, 1e9 byte/s (data sheet).
        share: of what peak and bandwidth allow, one after the other, that a step achieves:
            (FLOP / peak + bytes moved / bandwidth) of a trace, by the seconds that were published.
        share_from: where that number comes from.
        link: to the other GPUs of its machine, 1e9 byte/s in each direction (data sheet).
        network: of its machine, all adapters together, 1e9 byte/s in each direction.
        link_share: of link and network that a collective achieves; assumed.
        latency: of a collective of any number of GPUs, 1e-6 s; assumed.
        gpus: of a machine.
        bf16: whether it has bf16; fp16 otherwise.
    """

    memory: float
    tflops: float
    bandwidth: float
    link: float
    network: float
    share: float
    share_from: str
    gpus: int = 8
    reserved: float = 2.0
    link_share: float = 0.7
    latency: float = 40.0
    bf16: bool = True

    @property
    def usable(self) -> float:
        """Bytes that a training may take."""
        return (self.memory - self.reserved) * GIB


V100 = "SEER: 6.1 s per step of RegNetY-256GF on 512 V100 (arXiv 2103.01988), everything included"
A100 = "RegNetY-128GF at 120 images/s on one A100-80GB (milabench)"
HOPPER = "assumed as on A100; not measured"
# Memory: torch.cuda.mem_get_info, others from NVIDIA's data sheets; networks of DGX-1, A100, H100.
DEVICES = {
    "v100-16gb": Device(15.8, TFLOPS["V100"], 900, 150, 50, 0.17, V100, bf16=False),
    "v100-32gb": Device(31.7, TFLOPS["V100"], 900, 150, 50, 0.17, V100, bf16=False),
    "a100-40gb": Device(39.4, TFLOPS["A100"], 1555, 300, 200, 0.43, A100),
    "a100-80gb": Device(79.2, TFLOPS["A100"], 2039, 300, 200, 0.43, A100),
    "h100-80gb": Device(79.1, TFLOPS["H100"], 3350, 450, 400, 0.43, HOPPER),
    "h200": Device(139.8, TFLOPS["H200"], 4800, 450, 400, 0.43, HOPPER),
}


def find_device(name: str, file: Path | None = None, memory_gib: float | None = None) -> Device:
    """The device of that name, from the table or a YAML file that changes or adds to it.

    Args:
        file: `name: {memory: 39.4, ...}`; a known name needs only what differs.
        memory_gib: instead of its own.

    Raises:
        ConfigError: unknown name or key, a value of the wrong type, no such file.
    """
    table = DEVICES | (_read(file) if file else {})
    if name.lower() not in table:
        close = did_you_mean(name, table) or ";"
        raise ConfigError(f"gpu: unknown {name!r}{close} there are: {', '.join(table)}")
    device = table[name.lower()]
    return device if memory_gib is None else replace(device, memory=memory_gib)


STAND_IN = "a100-80gb"  # for what the table does not know


def closest(name: str, memory_bytes: int) -> Device:
    """The row for a name as CUDA gives it, or that of STAND_IN; with its own memory."""
    return replace(DEVICES[row_of(name) or STAND_IN], memory=memory_bytes / GIB)


def row_of(name: str) -> str | None:
    """The key of the row for a name as CUDA gives it, such as "NVIDIA H100 80GB HBM3"."""
    same = [k for k in DEVICES if re.search(rf"{k.partition('-')[0]}(?!\d)", name.lower())]
    return same[-1] if same else None


def gib(text: str) -> float:
    """80 from "80", "80GiB" or "80gib"; 74.5 from "80GB".

    Raises:
        ConfigError: something else, or nothing at all.
    """
    low = text.lower()
    number = low.removesuffix("gib").removesuffix("gb").strip()
    try:
        size = float(number) * (1e9 / GIB if low.endswith("gb") else 1)
    except ValueError:
        size = math.nan
    if not 0 < size < math.inf:
        raise ConfigError(f"gpu_memory: {text!r} is no size; write 80GiB or 80GB")
    return size


def _read(file: Path) -> dict[str, Device]:
    if not file.is_file():
        raise ConfigError(f"devices: no file {file}")
    try:
        with file.open(encoding="utf-8") as text:  # its name is in the parser's sentences
            found = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"devices: {file} cannot be read: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(row, dict) for row in found.values()):
        raise ConfigError(f"devices: {file} is not a mapping of names to {{memory: ..., ...}}")
    return {str(name).lower(): _device(str(name).lower(), row) for name, row in found.items()}


def _device(name: str, row: dict) -> Device:
    base = asdict(DEVICES[name]) if name in DEVICES else {}
    known = [f.name for f in fields(Device)]
    if unknown := [key for key in row if key not in known]:
        close = did_you_mean(unknown[0], known) or ";"
        raise ConfigError(
            f"devices: {name}: unknown key {unknown[0]!r}{close} accepted: {', '.join(known)}"
        )
    needed = [p.name for p in parameters_of(Device) if p.required and p.name not in {**base, **row}]
    if needed:
        raise ConfigError(f"devices: {name}: needs {', '.join(needed)}")
    device, problems = conform({**base, **row}, Device, f"devices.{name}")
    if problems:
        raise ConfigError(*problems)
    return device
