-- One row a section. Headings without text of their own go.
select
    file || '#' || section as seed_id,
    'textbook' as source,
    'Apache-2.0' as license,
    title,
    {{ tidy('text') }} as passage,
    {{ language_of('text') }} as lang
from {{ source('textbook') }}
where length({{ tidy('text') }}) > 0 and title <> '' and level > 1
