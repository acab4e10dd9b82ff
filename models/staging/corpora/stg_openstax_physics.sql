{{ config(enabled=var('use_corpora')) }}
select
    module || '/' || md5(text)[:8] as seed_id,
    'openstax_physics' as source,
    'CC-BY-4.0' as license,
    section as title,
    {{ tidy('text') }} as passage,
    'en' as lang
from {{ source('openstax_physics') }}
