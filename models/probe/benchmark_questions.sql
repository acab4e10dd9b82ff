-- Every multiple-choice question, in one schema, with the discipline and the difficulty that its subject stands for.
-- `part` keeps the questions that probe the base model apart from those that score the result.
with questions as (
    {% if var('use_corpora') -%}
    select * from {{ ref('stg_mmlu_stem') }}
    union all
    select * from {{ ref('stg_mmlu_stem_dev') }}
    union all
    select * from {{ ref('stg_agieval_gaokao_stem') }}
    {%- else -%}
    select * from {{ ref('stg_mmlu_cot') }}
    {%- endif %}
)
select
    question_id,
    benchmark,
    subject,
    question,
    choices,
    answer::bigint as answer,
    lang,
    part,
    {{ subject_discipline('subject') }} as discipline,
    {{ subject_difficulty('subject') }}::bigint as difficulty
from questions
