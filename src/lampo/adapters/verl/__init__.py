"""LamPO inside verl: with LamPO installed, `algorithm.adv_estimator=lampo` works. The page docs/engines-verl.md shows how.

`plugin` is what verl loads by itself, `advantages` converts its batch, `reward` judges responses, `parquet` writes our tasks in
its form (`python -m lampo.adapters.verl RECIPE FOLDER`).
"""
