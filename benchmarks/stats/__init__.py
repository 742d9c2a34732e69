"""Statistics of paired comparisons over shared episodes: intervals, verdicts and power.

Plain arrays first (`contrast`, `compare`, `components`, `aggregate`), then records (`columns`). docs/statistics.md
explains every interval in plain words. Nothing here imports torch, and pandas and scipy only where needed, so that
records load quickly.
"""

from benchmarks.stats.aggregate import Aggregate, TaskScores, aggregate, interquartile_mean
from benchmarks.stats.classes import Membership, clusters_by_item
from benchmarks.stats.columns import Column, Row, arranged, at_step, columns, distinct, row_of, task_scores
from benchmarks.stats.comparison import Comparison, Scores, compare, paired_contrast, short, starved, unequal
from benchmarks.stats.contrasts import Contrast, Interval, contrast, margin_on_scale, quantile
from benchmarks.stats.families import holm, interval_levels, letters, ranks, top_group
from benchmarks.stats.grouping import TestProtocol, fullest, grouped, protocol_of, superseded
from benchmarks.stats.power import Components, components, equivalence_power, needed, power
from benchmarks.stats.verdicts import Unequal, Verdict, judge
