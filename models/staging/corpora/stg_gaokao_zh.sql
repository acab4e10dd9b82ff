{{ config(enabled=var('use_corpora')) }}
select
    'gaokao/' || subject || '/' || year || '/' || md5(question)[:8] as seed_id,
    'gaokao_zh' as source,
    'Apache-2.0' as license,
    subject as title,
    {{ tidy('question') }} || E'\n' || {{ tidy('analysis') }} as passage,
    'zh' as lang
from {{ source('gaokao_zh') }}
