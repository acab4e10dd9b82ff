{{ config(enabled=var('use_corpora') and var('use_share_alike')) }}
with articles as (
    select unnest(json_extract(data, '$[*]')) as article
    from {{ source('xquad_web') }}
),
paragraphs as (
    select
        json_extract_string(article, '$.title') as title,
        unnest(json_extract_string(article, '$.paragraphs[*].context')) as context
    from articles
)
select
    'xquad/' || title || '/' || md5(context)[:8] as seed_id,
    'xquad_web' as source,
    'CC-BY-SA-4.0' as license,
    replace(title, '_', ' ') as title,
    {{ tidy('context') }} as passage,
    {{ language_of('context') }} as lang
from paragraphs
