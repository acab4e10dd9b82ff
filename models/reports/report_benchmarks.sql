-- Paired by question. At the floor of accuracy the probability of the right choice says more, so it leads.
with paired as (
    select
        question_id,
        discipline,
        max(gold_probability) filter (where model = 'base') as base_probability,
        max(gold_probability) filter (where model = 'trained') as trained_probability,
        max(correct) filter (where model = 'base') as base_correct,
        max(correct) filter (where model = 'trained') as trained_correct
    from {{ ref('benchmarks') }}
    group by question_id, discipline
),
labelled as (
    select *, discipline as stratum from paired
    union all
    select *, '(all)' as stratum from paired
)
select
    stratum,
    count(*) as questions,
    round(avg(base_probability), 4) as base_probability,
    round(avg(trained_probability), 4) as trained_probability,
    round(avg(trained_probability - base_probability), 4) as difference,
    round(1.96 * stddev_samp(trained_probability - base_probability) / sqrt(count(*)), 4) as difference_95,
    round(avg(base_correct), 4) as base_accuracy,
    round(avg(trained_correct), 4) as trained_accuracy
from labelled
group by stratum
order by stratum
