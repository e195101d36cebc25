"""Verifiers alone, without training and without torch: is what a model wrote right?

python examples/verifiers.py
"""

from lampo.verify import VerifierPool, verifier, verify


def main() -> None:
    """Judge some responses: one at a time, then many in worker processes that may hang or crash."""
    verdict = verify("math", r"Both sides are halved, so \boxed{\frac{1}{2}}.", "0.5")
    print(verdict.status, "because it says", verdict.extracted)

    completions = [r"\boxed{50\ \text{mm}}", r"\boxed{\{2, 1\}}", r"\boxed{0.333333}", "I do not know."]
    answers = ["5 cm", r"\{1, 2\}", "1/3", "7"]
    with VerifierPool() as pool:
        for completion, answer, said in zip(
            completions, answers, pool.verify(verifier("math"), completions, answers), strict=True
        ):
            print(f"{said.status:8}{completion} for {answer}")

    by_marker = verifier("numeric", marker="####")  # each verifier has options: `lampo config RECIPE` shows them
    print(by_marker.verify("9 * 2 = 18\n#### 18", "18").status)


if __name__ == "__main__":  # workers are processes of their own
    main()
