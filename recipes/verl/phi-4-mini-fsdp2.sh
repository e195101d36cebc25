#!/usr/bin/env bash
# Phi-4-mini-instruct on Mixture-of-Thoughts with LamPO in verl 0.9.1: FSDP2, vLLM, nodes of eight GPUs with 80 GB.
# The settings are those of recipes/phi-4-mini-mot.yaml. Not run at this size: docs/engines-verl.md says what was.
#
#   one node     recipes/verl/phi-4-mini-fsdp2.sh
#   four nodes   `ray start --head` on the first, `ray start --address=FIRST:6379` on the others, then on the first
#                RAY_ADDRESS=auto NODES=4 recipes/verl/phi-4-mini-fsdp2.sh
#   GRPO         the same with +algorithm.lampo.name=grpo behind it
#
# NODES=4 takes four times the problems a step; PROBLEMS=32 keeps those of one node. On several nodes, DATA and checkpoints
# need a folder that all of them see, and LamPO is installed on each.
#
# Memory of one GPU by arithmetic, not measured:
#   weights, gradients and AdamW in float32                             16 B x 3.84 G / 8 GPUs             7.7 GB
#   the frozen reference in float32, sharded                            4 B x 3.84 G / 8                   1.9 GB
#   update: logits of 8,192 tokens, bfloat16 and float32, and gradient  8,192 x 200,064 x (2 + 4 + 4) B   16.4 GB
#   update: inputs of 32 layers, kept for the backward pass             8,192 x 32 x 3,072 x 2 B           1.6 GB
#   rollouts: the weights of vLLM in bfloat16                           2 B x 3.84 G                       7.7 GB
#   rollouts: cache of 32 rows of 4,096 tokens, 32 layers               32 x 4,096 x 131,072 B            17.2 GB
# vLLM may take 0.6 of 80 GB. After its weights and 2 GB of its own that leaves 38 GB of cache.
# With what the trainer keeps, 58 of 80 GB are taken. The cache holds all rows at once.
# During the update vLLM sleeps. The first lines add up to 28 GB, and the activations of one layer come on top.
# Four nodes: fsdp_size=8 shards within a node, so the table stays, and gradients are averaged over nodes.
#
# Rows end at 4,096 tokens: beyond, the rotary factors of Phi-4-mini change. vLLM chooses them by max_model_len, so that
# is set to 4,096 as well. There is no Megatron recipe: neither Megatron-Bridge 0.5.1 nor mbridge 0.15.1 knows the model.

MODEL=microsoft/Phi-4-mini-instruct ENGINE=fsdp2 RECIPE=phi-4-mini-mot RESPONSE=3072
MAX_ROW=4096 MAX_UPDATE=8192 VLLM_SHARE=0.6
source "$(dirname "$0")/launch" "$@"
