{{ config(enabled=var('use_corpora')) }}
select
    'aqua/' || qid as seed_id,
    'aqua_qa' as source,
    'Apache-2.0' as license,
    'algebra word problem' as title,
    {{ tidy('question') }} || E'\n' || {{ tidy('rationale') }} as passage,
    'en' as lang
from {{ source('aqua_qa') }}
