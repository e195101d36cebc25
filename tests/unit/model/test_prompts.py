from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing

from lampo.config.schema import PromptOptions
from lampo.model import prompts
from lampo.model.policy import Policy
from lampo.model.pretrained import encode_beginning
from lampo.model.prompts import encode_prompts, refuse_long_prompts, refuse_unknown_characters
from lampo.types import LampoError, Problem

from ...conftest import CHARACTERS, tiny_options

CHAT = (
    "{% for message in messages %}#{{ message.role }}\n{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}#assistant\n{% if brief %}in brief\n{% endif %}{% endif %}"
)
CONTEXT = 128


def problem(prompt: str, name: str = "p") -> Problem:
    return Problem(id=name, prompt=prompt, answer="1")


def text(policy: Policy, options: PromptOptions, prompt: str = "1+2=") -> str:
    (ids,) = encode_prompts([problem(prompt)], policy, options)
    return policy.tokenizer.decode(ids, skip_special_tokens=False)


@pytest.fixture
def policy() -> Policy:
    return Policy.load(tiny_options(device="cpu"))


@pytest.fixture
def chatty(policy: Policy) -> Policy:
    policy.tokenizer.chat_template = CHAT
    return policy


def test_without_a_chat_template_the_prompt_is_the_template(policy: Policy) -> None:
    assert text(policy, PromptOptions()) == "1+2="
    assert text(policy, PromptOptions(template="what is {prompt}?")) == "what is 1+2=?"
    assert text(policy, PromptOptions(template="{prompt} again {prompt}", chat=False)) == "1+2= again 1+2="
    assert text(policy, PromptOptions(system="add", template="{prompt}?")) == "add\n\n1+2=?"


def test_braces_in_a_problem_are_only_text() -> None:
    policy = Policy.load(tiny_options(device="cpu").model_copy(update={"characters": CHARACTERS + "{}"}))
    assert text(policy, PromptOptions(template="{prompt} {x}"), "{prompt} {0} {y") == "{prompt} {0} {y {x}"


def test_order_is_kept(policy: Policy) -> None:
    ids = encode_prompts([problem("1"), problem("23"), problem("4")], policy, PromptOptions())
    assert [policy.decode(row.tolist()) for row in ids] == ["1", "23", "4"]


def test_the_chat_template_is_used_if_there_is_one(chatty: Policy) -> None:
    assert text(chatty, PromptOptions()) == "#user\n1+2=\n#assistant\n"
    assert text(chatty, PromptOptions(chat=True, template="so {prompt}?")) == "#user\nso 1+2=?\n#assistant\n"
    assert text(chatty, PromptOptions(system="add")) == "#system\nadd\n#user\n1+2=\n#assistant\n"
    assert text(chatty, PromptOptions(chat_options={"brief": True})) == "#user\n1+2=\n#assistant\nin brief\n"
    assert text(chatty, PromptOptions(chat=False, system="add")) == "add\n\n1+2="


def test_a_row_begins_as_the_tokenizer_begins_a_text(policy: Policy) -> None:
    policy.tokenizer.add_special_tokens({"bos_token": "<s>"})
    assert text(policy, PromptOptions()) == "1+2="
    begin, end = (policy.tokenizer.convert_tokens_to_ids(token) for token in ("<s>", "<eos>"))
    policy.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A <eos>", special_tokens=[("<s>", begin), ("<eos>", end)]
    )
    assert text(policy, PromptOptions()) == "<s>1+2="
    assert text(policy, PromptOptions(), "<s>1") == "<s>1"
    assert policy.decode(policy.encode("1")) == "1"
    policy.tokenizer.chat_template = CHAT
    assert text(policy, PromptOptions()) == "#user\n1+2=\n#assistant\n"  # a chat template begins by itself


def test_a_chat_template_that_refuses_is_no_traceback(policy: Policy) -> None:
    policy.tokenizer.chat_template = "{{ raise_exception('no system prompt here') }}"
    with pytest.raises(LampoError, match=r"refuses the prompt: no system prompt here\. Change prompt\.system"):
        encode_prompts([problem("1")], policy, PromptOptions(system="add"))


def test_characters_that_are_not_among_the_tokens_are_named() -> None:
    ours = [Problem(id="p", prompt="9+9=", answer="18", reference="9+9=18")]
    refuse_unknown_characters(ours, PromptOptions(), "9+=", solutions=False)
    with pytest.raises(LampoError, match=r"model\.characters lacks '18', which problem 'p' has"):
        refuse_unknown_characters(ours, PromptOptions(), "9+=", solutions=True)
    with pytest.raises(LampoError, match=r"lacks '\\na'"):
        refuse_unknown_characters(ours, PromptOptions(system="a"), "9+=", solutions=False)
    with pytest.raises(LampoError, match=r"lacks '\?'"):
        refuse_unknown_characters(ours, PromptOptions(template="{prompt}?"), "9+=", solutions=False)


def test_a_chat_that_cannot_be_had_is_refused(policy: Policy) -> None:
    with pytest.raises(LampoError, match="prompt.chat is true, but the tokenizer has no chat template"):
        encode_prompts([problem("1")], policy, PromptOptions(chat=True))


ROOM = 100  # tokens for the prompt, if 28 are for the completion


def test_exactly_the_long_prompts_are_refused(policy: Policy) -> None:
    options = PromptOptions(template="{prompt}=?")
    fits = [problem("1" * (ROOM - 2), "fits"), problem("7", "short")]
    refuse_long_prompts(fits, policy, options, CONTEXT - ROOM)
    long = [problem("1" * (ROOM - 1), "one too many"), problem("1" * ROOM, "longest"), problem("2" * (ROOM - 1), "too")]
    with pytest.raises(LampoError) as caught:
        refuse_long_prompts([*fits, *long], policy, options, CONTEXT - ROOM)
    assert str(caught.value).startswith(
        f"3 prompts are too long for the model: problem 'longest' has {ROOM + 2} tokens, and with "
        f"sampling.max_new_tokens={CONTEXT - ROOM} they exceed its context of {CONTEXT}."
    )


def test_the_frame_counts(chatty: Policy) -> None:
    frame = len("#user\n\n#assistant\n")
    refuse_long_prompts([problem("1" * (ROOM - frame))], chatty, PromptOptions(), CONTEXT - ROOM)
    with pytest.raises(LampoError, match=f"has {ROOM + 1} tokens"):
        refuse_long_prompts([problem("1" * (ROOM - frame + 1))], chatty, PromptOptions(), CONTEXT - ROOM)


def test_a_template_may_say_the_problem_twice(policy: Policy) -> None:
    options = PromptOptions(template="{prompt}\n{prompt}")
    refuse_long_prompts([problem("1" * 49)], policy, options, CONTEXT - ROOM)
    with pytest.raises(LampoError, match=f"has {2 * 50 + 1} tokens"):
        refuse_long_prompts([problem("1" * 50)], policy, options, CONTEXT - ROOM)


def test_many_bytes_are_no_reason_for_refusal(policy: Policy) -> None:
    refuse_long_prompts([problem("é" * ROOM)], policy, PromptOptions(), CONTEXT - ROOM)  # 200 bytes, 100 tokens


def test_short_prompts_are_not_tokenised(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def watched(tokenizer: Any, text: str) -> list[int]:
        seen.append(text)
        return encode_beginning(tokenizer, text)

    monkeypatch.setattr(prompts, "encode_beginning", watched)
    # 40 * 2 + 1 = 81 <= 100 bytes; 60 * 2 = 120 bytes might not fit
    problems = [problem("é" * 40, "short"), problem("é" * 60, "suspect"), problem("9", "shortest")]
    refuse_long_prompts(problems, policy, PromptOptions(), CONTEXT - ROOM)
    assert seen == ["x", "é" * 60]


def test_a_completion_as_long_as_the_context_is_refused(policy: Policy) -> None:
    with pytest.raises(LampoError, match=f"sampling.max_new_tokens is {CONTEXT}, but .* only {CONTEXT} tokens"):
        refuse_long_prompts([], policy, PromptOptions(), CONTEXT)
    refuse_long_prompts([], policy, PromptOptions(), CONTEXT - 1)
