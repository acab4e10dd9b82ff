-- Seed texts themselves, a small share of the mix against forgetting.
select seed_id, source, license, title, passage, lang, discipline, difficulty
from {{ ref('seeds_annotated') }}
where discipline <> 'other'
  and lang in ({% for lang in var('synth_langs') %}'{{ lang }}'{{ ', ' if not loop.last }}{% endfor %})
