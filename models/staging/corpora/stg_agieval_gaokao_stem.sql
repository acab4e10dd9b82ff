{{ config(enabled=var('use_corpora')) }}
select
    id as question_id,
    'agieval_gaokao_stem' as benchmark,
    subject,
    trim(question) as question,
    json_extract_string(choices, '$[*]') as choices,
    answer,
    lang,
    case when md5(question)[:1] < '4' then 'probe' else 'eval' end as part
from {{ source('agieval_gaokao_stem') }}
