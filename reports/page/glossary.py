"""The terms of the page, a line each."""

#: term -> its meaning
TERMS = {
    "±": "half of the 95 % interval (Student's t) over test episodes, of the mean over seeds",
    "† under-trained": "less than a tenth of its budget (the published one where there is one), or less than "
    "all of it and still improving on validation tasks",
    "better, worse": "Holm's test over all pairs of the test rejects at 5 %, so the adjusted interval excludes zero "
    "(for errors: a factor of 1)",
    "ahead, behind": "Holm's test rejects, but a fit is under-trained, or examples differ by more than a factor of "
    "2; no winner is named",
    "equivalent, non-inferior": "the 90 % interval (its lower end: “as good as”) lies within the task's margin",
    "undecided, unstable": "no rule above decides; a few episodes carry the mean, so there is no verdict",
    "winner, tie": "better than every other method; tied with the next",
    "rank, groups": "1 + the number of better ones; methods that share a letter can't be told apart (from 5 seeds on)",
    "seeds": "independent training runs; with fewer than 5 a verdict is about these trained models",
    "floor, ceiling": "a guess (chance, the best constant, random actions), and what knows the answer (the oracle)",
    "batch-norm: query, support, single, running": "statistics of the query batch (transductive, as in the "
    "MAML paper's code); of the support set; of the support set and one query at a time; kept from meta-training",
    "inner steps": "gradient steps on the support set of one task; a meta-step updates the initialisation after them",
    "of budget": "share of the published meta-steps; where none are published, of this suite's",
    "stood still at": "the meta-step at which training ended, as validation had stood still for the profile's patience",
    "best step, last checkpoint": "the state with the best validation score, which is tested, and the state at the end",
    "agrees, above, below; z": "our mean against a published one (a smaller error is below, and better); z is the "
    "difference in standard errors, with the variance between training runs",
}
