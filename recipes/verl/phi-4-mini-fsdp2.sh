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

set -euo pipefail
NODES=${NODES:-1}
PROBLEMS=${PROBLEMS:-$((32 * NODES))}
DATA=${DATA:-$PWD/data/phi-4-mini-mot}

[ -f "$DATA/train.parquet" ] || python3 -m lampo.adapters.verl phi-4-mini-mot "$DATA"

exec python3 -m verl.trainer.main_ppo \
  actor_rollout_ref.actor.strategy=fsdp2 \
  algorithm.adv_estimator=lampo \
  data.train_files="$DATA/train.parquet" \
  data.val_files="$DATA/test.parquet" \
  data.train_batch_size="$PROBLEMS" \
  data.max_prompt_length=1024 \
  data.max_response_length=3072 \
  data.filter_overlong_prompts=True \
  reward.custom_reward_function.path=pkg://lampo.adapters.verl.reward \
  actor_rollout_ref.model.path=microsoft/Phi-4-mini-instruct \
  actor_rollout_ref.actor.ppo_mini_batch_size="$PROBLEMS" \
  actor_rollout_ref.actor.use_dynamic_bsz=True \
  actor_rollout_ref.actor.ppo_max_token_len_per_gpu=8192 \
  actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-mean \
  actor_rollout_ref.actor.use_kl_loss=True \
  actor_rollout_ref.actor.kl_loss_coef=0.001 \
  actor_rollout_ref.actor.kl_loss_type=low_var_kl \
  actor_rollout_ref.actor.optim.lr=1e-6 \
  actor_rollout_ref.actor.optim.lr_warmup_steps=5 \
  actor_rollout_ref.actor.optim.weight_decay=0.0 \
  actor_rollout_ref.actor.fsdp_config.fsdp_size=8 \
  actor_rollout_ref.ref.fsdp_config.fsdp_size=8 \
  actor_rollout_ref.actor.entropy_from_logits_with_chunking=True \
  actor_rollout_ref.rollout.name=vllm \
  actor_rollout_ref.rollout.n=8 \
  actor_rollout_ref.rollout.tensor_model_parallel_size=1 \
  actor_rollout_ref.rollout.gpu_memory_utilization=0.6 \
  actor_rollout_ref.rollout.max_model_len=4096 \
  actor_rollout_ref.rollout.calculate_log_probs=True \
  actor_rollout_ref.rollout.val_kwargs.do_sample=True \
  actor_rollout_ref.rollout.val_kwargs.temperature=1.0 \
  trainer.nnodes="$NODES" \
  trainer.n_gpus_per_node=8 \
  trainer.total_training_steps=200 \
  trainer.save_freq=20 \
  trainer.max_actor_ckpt_to_keep=2 \
  trainer.test_freq=50 \
  trainer.val_before_train=False \
  trainer.project_name=lampo \
  trainer.experiment_name=phi-4-mini-fsdp2 \
  'trainer.logger=[console,tensorboard]' \
  "$@"
