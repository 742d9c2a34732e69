"""The sections of the page, in their order."""

from __future__ import annotations

from collections.abc import Sequence

from reports.cost import learners
from reports.cost import sections as cost
from reports.page import glossary, sections
from reports.page.sections import Section
from reports.results import Results
from reports.scores.cards import Described


def of(methods: Described, tasks: Described, other: Results | None = None) -> Sequence[Section]:
    """All sections. methods, tasks: the registered ones, for their cards. other: records to compare with."""
    found = list(SECTIONS)
    names = [section.name for section in found]
    place = names.index("failures")
    found[place:place] = [
        Section("methods", "Methods", "Methods", sections.method_cards(methods)),
        Section("tasks", "Tasks", "Tasks", sections.task_sheets(tasks)),
    ]
    if other is not None:
        found.insert(
            names.index("changes"), Section("against", "What changed", "What changed", sections.against(other))
        )
    return found


SECTIONS: Sequence[Section] = (
    # the first screen: the answers
    Section("answers", "", "", sections.in_short),
    Section("overview", "", "Methods and tests", sections.overview),
    Section("findings", "Verdicts", "Which meta-learner is best, and is the difference real?", sections.findings),
    Section("second-order", "Second order", "Is second order worth it?", cost.second_order),
    Section("agreement", "First order", "Where first order suffices", learners.agreement),
    Section("published", "Published", "Are the published numbers reached?", sections.published),
    Section("changes", "", "Did a change make anything slower or worse?", sections.changes),
    # what they rest on
    Section("results", "Results", "Results", sections.score_tables),
    Section("across", "Across tasks", "Across tasks", sections.across_tasks),
    Section("steps", "Inner steps", "Score against inner steps", sections.steps),
    Section("shots", "Shots", "Score against test shots", sections.shots, folded=True),
    Section("learning", "Learning curves", "Learning curves", sections.learning),
    Section("cost", "Cost", "Score against training cost", sections.training_cost),
    Section("implementations", "Implementations", "Implementations", cost.implementations, folded=True),
    Section("learners", "Learners' cost", "Cost of the learners", learners.learner_costs, folded=True),
    Section("functions", "Fits", "Fits before and after adaptation", sections.functions, folded=True),
    Section("control", "Control", "Control", sections.controlled),
    Section("episodes", "Episodes", "Sample episodes", sections.episodes, folded=True),
    Section("pairs", "Pairs", "Pairwise differences", sections.pairwise, folded=True),
    Section("claims", "Claims", "Claims of the papers", sections.claimed, folded=True),
    Section("trend", "Trend", "Times of the regression gate", sections.timed, folded=True),
    Section("failures", "Failures and skips", "Failures and skips", sections.failures, folded=True),
    Section("protocol", "Protocol and machine", "Protocol and machine", sections.protocol),
    Section("glossary", "Glossary", "Glossary", lambda results, looks: {"terms": glossary.TERMS}),
)
