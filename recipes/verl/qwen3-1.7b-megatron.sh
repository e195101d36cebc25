#!/usr/bin/env bash
# Qwen3-1.7B on Mixture-of-Thoughts with LamPO in verl 0.9.1: Megatron, vLLM, nodes of eight GPUs with 80 GB.
# The settings are those of recipes/qwen3-1.7b-mot.yaml. Not run at this size: docs/engines-verl.md says what was.
#
#   one node     recipes/verl/qwen3-1.7b-megatron.sh
#   four nodes   `ray start --head` on the first, `ray start --address=FIRST:6379` on the others, then on the first
#                RAY_ADDRESS=auto NODES=4 recipes/verl/qwen3-1.7b-megatron.sh
#   GRPO         the same with +algorithm.lampo.name=grpo behind it
#
# NODES=4 takes four times the problems a step; PROBLEMS=32 keeps those of one node. On several nodes, DATA and checkpoints
# need a folder that all of them see, and LamPO is installed on each.
#
# Memory of one GPU by arithmetic, not measured:
#   weights in bfloat16, gradients in float32, halved by tensor parallelism  6 B x 1.72 G / 2                5.2 GB
#   AdamW and float32 weights, shared by the 4 data-parallel ranks           12 B x 1.72 G / 2 / 4           2.6 GB
#   the frozen reference in bfloat16                                         2 B x 1.72 G / 2                1.7 GB
#   update: logits of 9,216 tokens, half a vocabulary, and gradient          9,216 x 151,936 x 10 B / 2      7.0 GB
#   update: inputs of 28 layers, kept for the backward pass                  9,216 x 28 x 2,048 x 2 B / 2    0.5 GB
#   rollouts: the weights of vLLM in bfloat16                                2 B x 1.72 G                    3.4 GB
#   rollouts: cache of 32 rows of 9,216 tokens, 28 layers                    32 x 9,216 x 114,688 B         33.8 GB
# vLLM may take 0.6 of 80 GB. After its weights and 2 GB of its own that leaves 43 GB of cache.
# With what the trainer keeps, 57 of 80 GB are taken. The cache holds all rows at once.
# During the update vLLM sleeps. The first lines add up to 17 GB, and the activations of one layer come on top.
# Four nodes: 16 data-parallel ranks share AdamW, 0.6 GB each; the rest of the table stays.
#
# Megatron keeps its weights in bfloat16 with float32 copies in AdamW; FSDP2 keeps float32 weights. Both compute in bfloat16.

MODEL=Qwen/Qwen3-1.7B ENGINE=megatron RECIPE=qwen3-1.7b-mot RESPONSE=8192
MAX_ROW=9216 MAX_UPDATE=9216 VLLM_SHARE=0.6
source "$(dirname "$0")/launch" +data.apply_chat_template_kwargs.enable_thinking=True "$@"
