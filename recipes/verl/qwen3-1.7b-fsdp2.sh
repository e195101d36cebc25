#!/usr/bin/env bash
# Qwen3-1.7B on Mixture-of-Thoughts with LamPO in verl 0.9.1: FSDP2, vLLM, nodes of eight GPUs with 80 GB.
# The settings are those of recipes/qwen3-1.7b-mot.yaml. Not run at this size: docs/engines-verl.md says what was.
#
#   one node     recipes/verl/qwen3-1.7b-fsdp2.sh
#   four nodes   `ray start --head` on the first, `ray start --address=FIRST:6379` on the others, then on the first
#                RAY_ADDRESS=auto NODES=4 recipes/verl/qwen3-1.7b-fsdp2.sh
#   GRPO         the same with +algorithm.lampo.name=grpo behind it
#
# NODES=4 takes four times the problems a step; PROBLEMS=32 keeps those of one node. On several nodes, DATA and checkpoints
# need a folder that all of them see, and LamPO is installed on each.
#
# Memory of one GPU by arithmetic, not measured:
#   weights, gradients and AdamW in float32                             16 B x 1.72 G / 8 GPUs             3.4 GB
#   the frozen reference in float32, sharded                            4 B x 1.72 G / 8                   0.9 GB
#   update: logits of 9,216 tokens, bfloat16 and float32, and gradient  9,216 x 151,936 x (2 + 4 + 4) B   14.0 GB
#   update: inputs of 28 layers, kept for the backward pass             9,216 x 28 x 2,048 x 2 B           1.1 GB
#   rollouts: the weights of vLLM in bfloat16                           2 B x 1.72 G                       3.4 GB
#   rollouts: cache of 32 rows of 9,216 tokens, 28 layers               32 x 9,216 x 114,688 B            33.8 GB
# vLLM may take 0.6 of 80 GB. After its weights and 2 GB of its own that leaves 43 GB of cache.
# With what the trainer keeps, 52 of 80 GB are taken. The cache holds all rows at once.
# During the update vLLM sleeps. The first lines add up to 19 GB, and the activations of one layer come on top.
# Four nodes: fsdp_size=8 shards within a node, so the table stays, and gradients are averaged over nodes.

MODEL=Qwen/Qwen3-1.7B ENGINE=fsdp2 RECIPE=qwen3-1.7b-mot RESPONSE=8192
MAX_ROW=9216 MAX_UPDATE=9216 VLLM_SHARE=0.6
source "$(dirname "$0")/launch" +data.apply_chat_template_kwargs.enable_thinking=True "$@"
