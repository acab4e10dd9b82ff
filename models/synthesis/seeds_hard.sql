-- Seeds for high-difficulty synthesis: all disciplines, the harder seeds of each first; text that teaches nothing stays out.
with turns as (
    select *, row_number() over (partition by discipline order by difficulty desc, md5(seed_id), seed_id) as turn
    from {{ ref('seeds_annotated') }}
    where discipline <> 'other'
      and lang in ({% for lang in var('synth_langs') %}'{{ lang }}'{{ ', ' if not loop.last }}{% endfor %})
)
select seed_id, source, license, title, passage, lang, discipline, difficulty
from turns
order by turn, difficulty desc, discipline, seed_id
{% if var('hard_rows') %}limit {{ var('hard_rows') }}{% endif %}
