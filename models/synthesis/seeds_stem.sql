-- STEM seeds for multi-grade synthesis, one discipline after the other.
with turns as (
    select *, row_number() over (partition by discipline order by md5(seed_id), seed_id) as turn
    from {{ ref('seeds_annotated') }}
    where {{ is_stem('discipline') }}
      and lang in ({% for lang in var('synth_langs') %}'{{ lang }}'{{ ', ' if not loop.last }}{% endfor %})
)
select seed_id, source, license, title, passage, lang, discipline, difficulty
from turns
order by turn, discipline, seed_id
{% if var('stem_rows') %}limit {{ var('stem_rows') }}{% endif %}
