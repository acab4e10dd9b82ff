-- What must not reach a training row: the questions of every benchmark, those with free answers too.
select question_id, benchmark, question as text from {{ ref('benchmark_questions') }}
{% if var('use_corpora') %}
union all
select id as question_id, 'arc_challenge' as benchmark, question as text from {{ source('arc_challenge') }}
union all
select id as question_id, 'gsm8k' as benchmark, question as text from {{ source('gsm8k') }}
union all
select id as question_id, 'math' as benchmark, problem as text from {{ source('math_agieval') }}
{% endif %}
