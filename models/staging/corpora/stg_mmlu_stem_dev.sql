{{ config(enabled=var('use_corpora')) }}
select
    id as question_id,
    'mmlu_stem_dev' as benchmark,
    subject,
    trim(question) as question,
    json_extract_string(choices, '$[*]') as choices,
    answer,
    lang,
    'probe' as part
from {{ source('mmlu_stem_dev') }}
