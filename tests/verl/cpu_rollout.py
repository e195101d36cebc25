"""A rollout server for verl on the CPU: transformers' `generate` in a Ray actor, one for each rank."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Generator
from typing import Any

import ray
import torch
from transformers import AutoModelForCausalLM
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, TokenOutput

from tests.verl.cpu_platform import SERVER


class Server:
    """Answers requests in batches: it waits until none has come for a moment."""

    def __init__(self, path: str, response_length: int) -> None:
        torch.set_num_threads(1)
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        self.response_length = response_length
        self.waiting: list[tuple[list[int], dict[str, Any], asyncio.Future[TokenOutput]]] = []
        self.steps = 0
        self.worker: asyncio.Task[None] | None = None

    async def generate(
        self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any], **_: Any
    ) -> TokenOutput:
        future: asyncio.Future[TokenOutput] = asyncio.get_running_loop().create_future()
        self.waiting.append((list(prompt_ids), sampling_params, future))
        if self.worker is None or self.worker.done():
            self.worker = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        while self.waiting:
            count = -1
            while count != len(self.waiting):
                count = len(self.waiting)
                await asyncio.sleep(0.1)
            requests, self.waiting = self.waiting, []
            for temperature in {params.get("temperature", 1.0) for _, params, _ in requests}:
                same = [request for request in requests if request[1].get("temperature", 1.0) == temperature]
                outputs = self._sample([prompt for prompt, _, _ in same], temperature)
                for (_, _, future), output in zip(same, outputs, strict=True):
                    future.set_result(output)

    @torch.no_grad()
    def _sample(self, prompts: list[list[int]], temperature: float) -> list[TokenOutput]:
        longest = max(map(len, prompts))
        pad, end = self.model.config.pad_token_id or 0, self.model.generation_config.eos_token_id
        ends = end if isinstance(end, list) else [end]
        ids = torch.tensor([[pad] * (longest - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        sampling = {"do_sample": temperature > 0} | ({"temperature": temperature} if temperature > 0 else {})
        said = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=self.response_length,
            top_k=0,
            top_p=1.0,
            pad_token_id=pad,
            return_dict_in_generate=True,
            output_scores=True,
            **sampling,
        )
        new = said.sequences[:, longest:]
        logprobs = torch.stack(said.scores, 1).log_softmax(-1).gather(2, new[:, :, None])[:, :, 0]
        outputs = []
        for tokens, scores in zip(new.tolist(), logprobs.tolist(), strict=True):
            length = next((index + 1 for index, token in enumerate(tokens) if token in ends), len(tokens))
            extra = {"global_steps": self.steps}
            outputs.append(
                TokenOutput(
                    token_ids=tokens[:length], log_probs=scores[:length], stop_reason="completed", extra_fields=extra
                )
            )
        return outputs

    async def load(self, weights: dict[str, Any], steps: int | None) -> None:
        missing, unexpected = self.model.load_state_dict(
            {name: torch.from_numpy(value) for name, value in weights.items()}, strict=False
        )
        assert not unexpected, unexpected
        assert set(missing) <= {"lm_head.weight"}, missing
        self.model.tie_weights()
        self.steps = self.steps if steps is None else steps

    async def nothing(self, *_: Any, **__: Any) -> None:
        return None

    wake_up = sleep = abort_all_requests = resume_generation = clear_kv_cache = nothing
    release_kv_cache = resume_kv_cache = start_profile = stop_profile = nothing


class CpuReplica(RolloutReplica):
    async def launch_servers(self) -> None:
        node = await self.workers[0].__ray_call__.remote(lambda self: ray.get_runtime_context().get_node_id())
        near = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node_id=node, soft=False)
        server = (
            ray.remote(Server)
            .options(name=SERVER.format(self.replica_rank), scheduling_strategy=near, max_concurrency=1000, num_cpus=0)
            .remote(self.model_config.path, self.config.response_length)
        )
        self.servers, self._server_handle, self._server_address = [server], server, f"cpu:{self.replica_rank}"
        await server.nothing.remote()


class CpuAdapter(BaseRollout):
    """In each rank: it hands the weights to the rank's own server."""

    def __init__(self, config: Any, model_config: Any, device_mesh: Any, *_: Any, **__: Any) -> None:
        super().__init__(config, model_config, device_mesh)
        self.rank = int(os.environ["RANK"])

    async def resume(self, tags: list[str]) -> None: ...

    async def release(self) -> None: ...

    async def update_weights(
        self, weights: Generator[tuple[str, torch.Tensor]], global_steps: int | None = None, **_: Any
    ) -> None:
        whole = {name: tensor.detach().float().cpu().numpy().copy() for name, tensor in weights}
        await ray.get_actor(SERVER.format(self.rank)).load.remote(whole, global_steps)
