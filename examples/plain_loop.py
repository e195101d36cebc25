"""LamPO in a plain PyTorch loop: python examples/plain_loop.py MODEL [STEPS [MAX_NEW_TOKENS]]

transformers samples, lampo judges and gives advantages and the loss. MODEL is a folder or hub name.
"""

import csv
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lampo import pairwise_advantages, policy_loss, reward_function, sequence_scores

P, G = 2, 8  # problems of a step, rollouts of a problem


def main(path: str = "Qwen/Qwen3-0.6B", steps: str = "20", max_new_tokens: str = "128") -> None:
    """Sample, judge, estimate, update: one step after the other."""
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    reward = reward_function("numeric")
    with (Path(__file__).parent / "problems.csv").open(newline="") as file:
        problems = list(csv.DictReader(file))
    # top_k and top_p off: what is sampled has to come from the policy itself
    sampling = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": int(max_new_tokens)}

    for step in range(int(steps)):
        rows_N = [problems[(step * P + index) % len(problems)] for index in range(P) for _ in range(G)]
        prompt = tokenizer([row["question"] + "\n" for row in rows_N], return_tensors="pt", padding=True)
        ids_NL = model.generate(prompt["input_ids"], attention_mask=prompt["attention_mask"], **sampling)
        completion_NT = ids_NL[:, prompt["input_ids"].shape[1] :]
        texts_N = tokenizer.batch_decode(completion_NT, skip_special_tokens=True)

        ends_NT = (completion_NT == tokenizer.eos_token_id).long()
        mask_NT = ends_NT.cumsum(1) - ends_NT == 0  # up to the first end of sequence, which is learned too
        seen_NL = torch.cat([prompt["attention_mask"], mask_NT.long()], dim=1)
        positions_NL = (seen_NL.cumsum(1) - 1).clamp(min=0)  # prompts are padded on the left
        logits_NLV = model(input_ids=ids_NL, attention_mask=seen_NL, position_ids=positions_NL).logits
        logprobs_NTV = logits_NLV[:, -completion_NT.shape[1] - 1 : -1].log_softmax(-1)
        logprobs_NT = logprobs_NTV.gather(-1, completion_NT[..., None]).squeeze(-1)
        old_logprobs_NT = logprobs_NT.detach()  # one update a batch: the policy that sampled is the one that learns

        rewards = reward(completions=texts_N, answer=[row["answer"] for row in rows_N])
        valid_N = torch.tensor([value is not None for value in rewards])  # an unknown verdict is not a 0
        rewards_N = torch.tensor([value or 0.0 for value in rewards])
        scores_N, group_ids_N = sequence_scores(old_logprobs_NT, mask_NT), torch.arange(P).repeat_interleave(G)
        advantages_N = pairwise_advantages(rewards_N, scores_N, group_ids_N, valid_N=valid_N)
        loss = policy_loss(logprobs_NT, old_logprobs_NT, advantages_N, mask_NT, denominator=max(1, int(valid_N.sum())))
        optimizer.zero_grad()
        loss.value.backward()
        optimizer.step()
        num_pushed = int((advantages_N != 0).sum())
        print(f"step {step + 1}: {rewards_N.mean():.1%} right, {num_pushed} of {P * G} rollouts pushed")


if __name__ == "__main__":
    main(*sys.argv[1:])
