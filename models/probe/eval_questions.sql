-- The questions of the part 'eval': one discipline after the other, so that a small sample has all of them.
with turns as (
    select *, row_number() over (partition by discipline order by md5(question_id), question_id) as turn
    from {{ ref('benchmark_questions') }}
    where part = 'eval'
    {% if var('max_question_chars') %}and length(question) + length(array_to_string(choices, '')) <= {{ var('max_question_chars') }}{% endif %}
)
select question_id, benchmark, subject, question, choices, answer, lang, discipline, difficulty
from turns
order by turn, discipline, question_id
{% if var('eval_rows') %}limit {{ var('eval_rows') }}{% endif %}
