"""The paper's whole loop, N times: finetune captioner and filter, bootstrap the source with them, pretrain anew.

    OUT/recipe.yaml           what was asked, written by the first run
    OUT/round-01/captioner/   finetuned on human pairs          OUT/round-01/captioner.json    its figures
    OUT/round-01/filter/      the same, apart                   OUT/round-01/filter.json
    OUT/round-01/data/        the source, bootstrapped          OUT/round-01/data.json
    OUT/round-01/pretrain/    pretrained anew on data and human OUT/round-01/pretrain.json
    OUT/round-01/held-out/    what they are worth               OUT/round-01/held-out.json
    OUT/round-01/round.json   the round's figures, written last
    OUT/rounds.json           those of all rounds               OUT/report.html   the same, side by side

The model that a round pretrains is what the next one finetunes. A step's JSON is written after the step: with it the
step is not done again, without it training goes on from its checkpoint and the bootstrap does the parts that are left.
Knows the order of things and what is handed on; each step is another room's.
"""
