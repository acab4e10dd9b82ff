-- How much the base model lacks in each stratum: one minus the probability that it gives to the right choice, drawn towards
-- the mean of all questions where few were asked, and scaled so that an average stratum weighs one. Every stratum has a row.
with overall as (
    select avg(1 - gold_probability) as mean_lack from {{ ref('probe') }}
),
measured as (
    select discipline, difficulty, count(*) as questions, sum(1 - gold_probability) as lack
    from {{ ref('probe') }}
    group by discipline, difficulty
),
grid as (
    select strata.discipline, levels.difficulty
    from (select unnest({{ discipline_array() }}) as discipline) as strata
    cross join (select unnest([1, 2, 3, 4, 5]::bigint[]) as difficulty) as levels
)
select
    grid.discipline,
    grid.difficulty,
    coalesce(measured.questions, 0) as questions,
    (coalesce(measured.lack, 0) + 4 * overall.mean_lack) / (coalesce(measured.questions, 0) + 4) as lack,
    greatest(0.25, least(4.0, power(
        (coalesce(measured.lack, 0) + 4 * overall.mean_lack) / (coalesce(measured.questions, 0) + 4) / overall.mean_lack, 2
    ))) as weight
from grid
cross join overall
left join measured on measured.discipline = grid.discipline and measured.difficulty = grid.difficulty
