-- Heterogeneous sources → one schema, each text once.
with pooled as (
    {% if var('use_corpora') -%}
    select seed_id, source, license, title, passage, lang from {{ ref('stg_openstax_physics') }}
    union all
    select seed_id, source, license, title, passage, lang from {{ ref('stg_faraday_candle') }}
    union all
    select seed_id, source, license, title, passage, lang from {{ ref('stg_aqua_qa') }}
    union all
    select seed_id, source, license, title, passage, lang from {{ ref('stg_gaokao_zh') }}
    {%- if var('use_share_alike') %}
    union all
    select seed_id, source, license, title, passage, lang from {{ ref('stg_xquad_web') }}
    {%- endif %}
    {%- else -%}
    select seed_id, source, license, title, passage, lang from {{ ref('stg_textbook') }}
    union all
    select seed_id, source, license, title, passage, lang from {{ ref('stg_qa_pairs') }}
    union all
    select seed_id, source, license, title, passage, lang from {{ ref('stg_web_posts') }}
    union all
    select seed_id, source, license, title, passage, lang from {{ ref('stg_datasets') }}
    {%- endif %}
)
select
    seed_id,
    source,
    license,
    title,
    passage,
    lang,
    {{ looks_like_advertising('passage') }} as is_advertising,
    {{ looks_like_chatter("coalesce(title, '') || ' ' || passage") }} as is_chatter
from pooled
qualify row_number() over (partition by {{ normalised('passage') }} order by seed_id) = 1
