#!/usr/bin/env bash
# Qwen3-4B on Mixture-of-Thoughts with LamPO in verl 0.9.1: FSDP2, vLLM, nodes of eight GPUs with 80 GB.
# The settings are those of recipes/qwen3-4b-mot.yaml. Not run at this size: docs/engines-verl.md says what was.
#
#   one node     recipes/verl/qwen3-4b-fsdp2.sh
#   four nodes   `ray start --head` on the first, `ray start --address=FIRST:6379` on the others, then on the first
#                RAY_ADDRESS=auto NODES=4 recipes/verl/qwen3-4b-fsdp2.sh
#   GRPO         the same with +algorithm.lampo.name=grpo behind it
#
# NODES=4 takes four times the problems a step; PROBLEMS=32 keeps those of one node. On several nodes, DATA and checkpoints
# need a folder that all of them see, and LamPO is installed on each.
#
# Memory of one GPU by arithmetic, not measured:
#   weights, gradients and AdamW in float32                             16 B x 4.02 G / 8 GPUs             8.0 GB
#   the frozen reference in float32, sharded                            4 B x 4.02 G / 8                   2.0 GB
#   update: logits of 9,216 tokens, bfloat16 and float32, and gradient  9,216 x 151,936 x (2 + 4 + 4) B   14.0 GB
#   update: inputs of 36 layers, kept for the backward pass             9,216 x 36 x 2,560 x 2 B           1.7 GB
#   rollouts: the weights of vLLM in bfloat16                           2 B x 4.02 G                       8.0 GB
#   rollouts: cache of 32 rows of 9,216 tokens, 36 layers               32 x 9,216 x 147,456 B            43.5 GB
# vLLM may take 0.65 of 80 GB. After its weights and 2 GB of its own that leaves 42 GB of cache.
# With what the trainer keeps, 62 of 80 GB are taken. The cache holds 96% of the rows where all are longest. vLLM lets the others wait.
# During the update vLLM sleeps. The first lines add up to 26 GB, and the activations of one layer come on top.
# Four nodes: fsdp_size=8 shards within a node, so the table stays, and gradients are averaged over nodes.

MODEL=Qwen/Qwen3-4B ENGINE=fsdp2 RECIPE=qwen3-4b-mot RESPONSE=8192
MAX_ROW=9216 MAX_UPDATE=9216 VLLM_SHARE=0.65
source "$(dirname "$0")/launch" +data.apply_chat_template_kwargs.enable_thinking=True "$@"
