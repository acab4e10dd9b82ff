-- The seeds that are annotated: every source in proportion, in an order that new seeds hardly disturb.
with places as (
    select
        *,
        row_number() over (partition by source order by md5(seed_id), seed_id) / count(*) over (partition by source)::double as place
    from {{ ref('seeds_clean') }}
)
select seed_id, source, license, title, passage, lang
from places
order by place, source, seed_id
{% if var('seed_rows') %}limit {{ var('seed_rows') }}{% endif %}
