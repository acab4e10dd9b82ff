-- Grade × difficulty × discipline at three stages.
with stages as (
    select grade, discipline, difficulty, 'synthesised' as stage from {{ ref('qa_labelled') }}
    union all
    select grade, discipline, difficulty, 'filtered' as stage from {{ ref('qa_filtered') }}
    union all
    select grade, discipline, difficulty, 'dataset' as stage from {{ ref('boostqa') }} where grade is not null
)
select
    discipline,
    grade,
    difficulty,
    count(*) filter (where stage = 'synthesised') as synthesised,
    count(*) filter (where stage = 'filtered') as filtered,
    count(*) filter (where stage = 'dataset') as dataset
from stages
group by discipline, grade, difficulty
order by discipline, grade, difficulty
