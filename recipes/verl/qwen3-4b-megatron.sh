#!/usr/bin/env bash
# Qwen3-4B on Mixture-of-Thoughts with LamPO in verl 0.9.1: Megatron, vLLM, nodes of eight GPUs with 80 GB.
# The settings are those of recipes/qwen3-4b-mot.yaml. Not run at this size: docs/engines-verl.md says what was.
#
#   one node     recipes/verl/qwen3-4b-megatron.sh
#   four nodes   `ray start --head` on the first, `ray start --address=FIRST:6379` on the others, then on the first
#                RAY_ADDRESS=auto NODES=4 recipes/verl/qwen3-4b-megatron.sh
#   GRPO         the same with +algorithm.lampo.name=grpo behind it
#
# NODES=4 takes four times the problems a step; PROBLEMS=32 keeps those of one node. On several nodes, DATA and checkpoints
# need a folder that all of them see, and LamPO is installed on each.
#
# Memory of one GPU by arithmetic, not measured:
#   weights in bfloat16, gradients in float32, halved by tensor parallelism  6 B x 4.02 G / 2               12.1 GB
#   AdamW and float32 weights, shared by the 4 data-parallel ranks           12 B x 4.02 G / 2 / 4           6.0 GB
#   the frozen reference in bfloat16                                         2 B x 4.02 G / 2                4.0 GB
#   update: logits of 9,216 tokens, half a vocabulary, and gradient          9,216 x 151,936 x 10 B / 2      7.0 GB
#   update: inputs of 36 layers, kept for the backward pass                  9,216 x 36 x 2,560 x 2 B / 2    0.8 GB
#   rollouts: the weights of vLLM in bfloat16                                2 B x 4.02 G                    8.0 GB
#   rollouts: cache of 32 rows of 9,216 tokens, 36 layers                    32 x 9,216 x 147,456 B         43.5 GB
# vLLM may take 0.65 of 80 GB. After its weights and 2 GB of its own that leaves 42 GB of cache.
# With what the trainer keeps, 74 of 80 GB are taken. The cache holds 96% of the rows where all are longest. vLLM lets the others wait.
# During the update vLLM sleeps. The first lines add up to 30 GB, and the activations of one layer come on top.
# Four nodes: 16 data-parallel ranks share AdamW, 1.5 GB each; the rest of the table stays.
#
# Megatron keeps its weights in bfloat16 with float32 copies in AdamW; FSDP2 keeps float32 weights. Both compute in bfloat16.

MODEL=Qwen/Qwen3-4B ENGINE=megatron RECIPE=qwen3-4b-mot RESPONSE=8192
MAX_ROW=9216 MAX_UPDATE=9216 VLLM_SHARE=0.65
source "$(dirname "$0")/launch" +data.apply_chat_template_kwargs.enable_thinking=True "$@"
