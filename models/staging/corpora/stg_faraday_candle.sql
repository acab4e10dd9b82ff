{{ config(enabled=var('use_corpora')) }}
-- A lecture is far too long for one seed: its paragraphs are the seeds.
with paragraphs as (
    select section, title, unnest(regexp_split_to_array(text, '\n\s*\n')) as paragraph
    from {{ source('faraday_candle') }}
)
select
    section || '/' || md5(paragraph)[:8] as seed_id,
    'faraday_candle' as source,
    'public domain' as license,
    title,
    {{ tidy('paragraph') }} as passage,
    'en' as lang
from paragraphs
where length(paragraph) >= 200
