-- One line a rule: what it dropped, and what came in at the top of its filter.
with dropped as (
    select 1 as step, 'seeds_clean' as filter, _bq_rule as rule from {{ ref('seeds_clean__rejects') }}
    union all
    select 2 as step, 'qa_checked' as filter, _bq_rule as rule from {{ ref('qa_checked__rejects') }}
    union all
    select 3 as step, 'qa_filtered' as filter, _bq_rule as rule from {{ ref('qa_filtered__rejects') }}
    union all
    select 1 as step, 'seeds_clean' as filter, '(kept)' as rule from {{ ref('seeds_clean') }}
    union all
    select 2 as step, 'qa_checked' as filter, '(kept)' as rule from {{ ref('qa_checked') }}
    union all
    select 3 as step, 'qa_filtered' as filter, '(kept)' as rule from {{ ref('qa_filtered') }}
)
select
    step,
    filter,
    rule,
    count(*) as rows,
    round(count(*) / sum(count(*)) over (partition by filter), 4) as share
from dropped
group by step, filter, rule
order by step, rule = '(kept)', rows desc, rule
