"""verl without a GPU, for tests only: a platform `cpu` on gloo, and a rollout `cpuhf` that samples with transformers.

verl loads it by VERL_USE_EXTERNAL_MODULES in the driver and in every Ray worker. Ray's resource "GPU" is made up by
`ray_init.num_gpus`. VERL_PLATFORM=cpu selects the platform, VERL_ENGINE_DEVICE=cuda the FSDP engine.
"""

from __future__ import annotations

import itertools
import os
import pickle
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry

import lampo.adapters.verl.advantages as ours

torch.set_num_threads(1)

SERVER = "cpuhf_server_{}_0"
MODULE = "tests.verl.cpu_platform"


def _device_module() -> types.ModuleType:
    """What verl asks of torch.cuda, of a machine that has none."""
    module = types.ModuleType("torch_cpu_as_accelerator")

    def nothing(*_: Any, **__: Any) -> None:
        return None

    for name in (
        "empty_cache",
        "synchronize",
        "set_device",
        "manual_seed",
        "manual_seed_all",
        "reset_peak_memory_stats",
    ):
        setattr(module, name, nothing)
    for name in (
        "memory_allocated",
        "memory_reserved",
        "max_memory_allocated",
        "max_memory_reserved",
        "current_device",
    ):
        setattr(module, name, lambda *_, **__: 0)
    module.is_available = lambda: True
    module.device_count = lambda: 1
    module.mem_get_info = lambda *_: (1 << 30, 1 << 30)
    module.get_device_name = lambda *_: "cpu"
    module.get_rng_state = torch.get_rng_state
    module.set_rng_state = torch.set_rng_state
    module.current_stream = torch.cpu.current_stream
    module.stream = torch.cpu.stream
    module.Stream = torch.cpu.Stream
    module.Event = nothing
    module.device = contextmanager(lambda *_: iter([None]))
    return module


@PlatformRegistry.register(platform="cpu")
class PlatformCPU(PlatformBase):
    device_name = "cpu"
    vendor_name = "cpu"
    device_module = _device_module()

    def is_available(self) -> bool:
        return True

    def current_device(self) -> Any:
        return "cpu"

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None: ...

    def synchronize(self, device_index: int | None = None) -> None: ...

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None: ...

    def empty_cache(self) -> None: ...

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None: ...

    def profiler_stop(self) -> None: ...

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> None:
        return None


def _accept_gloo_twice() -> None:
    """verl asks for "cpu:gloo,<device>:<backend>", which torch refuses where the device is the CPU."""
    inner = torch.distributed.init_process_group

    def init_process_group(backend: Any = None, *args: Any, **kwargs: Any) -> Any:
        return inner("gloo" if backend == "cpu:gloo,cpu:gloo" else backend, *args, **kwargs)

    torch.distributed.init_process_group = init_process_group


def _pin_nothing() -> None:
    """verl keeps a reference policy in pinned memory, which there is none of without a GPU."""
    torch.Tensor.pin_memory = lambda self, *_, **__: self


def _load_replica() -> type[Any]:
    from tests.verl.cpu_rollout import CpuReplica

    return CpuReplica


def _register_rollout() -> None:
    from verl.workers.rollout import base, replica

    replica.RolloutReplicaRegistry.register("cpuhf", _load_replica)
    base._ROLLOUT_REGISTRY["cpuhf", "async"] = "tests.verl.cpu_rollout.CpuAdapter"


class _Late:
    """verl's rollout modules cannot be imported before verl is: register once they are."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname == "verl.workers.rollout.llm_server" or fullname == "verl.workers.engine_workers":
            sys.meta_path.remove(self)
            _register_rollout()


def _record(folder: Path) -> None:
    """Write down every batch that the estimator was given, and what it gave."""
    inner, number = ours.advantages_of, itertools.count()

    def advantages_of(batch: Any, token_rewards: Any, mask: Any, uids: Any, settings: Any = None) -> Any:
        said = {name: batch[name].clone() for name in batch.keys()}  # noqa: SIM118 (a TensorDict)
        advantages = inner(batch, token_rewards, mask, uids, settings)
        after = batch["response_mask"].clone()
        record = {"batch": said, "rewards": token_rewards.clone(), "mask": mask.clone(), "uids": list(uids)}
        record |= {"advantages": advantages.clone(), "mask_after": after, "pid": os.getpid()}
        (folder / f"{os.getpid()}-{next(number):03}.pickle").write_bytes(pickle.dumps(record))
        return advantages

    ours.advantages_of = advantages_of


_accept_gloo_twice()
_pin_nothing()
sys.meta_path.insert(0, _Late())  # pyright: ignore[reportArgumentType]
if folder := os.environ.get("LAMPO_TEST_RECORD"):
    _record(Path(folder))
