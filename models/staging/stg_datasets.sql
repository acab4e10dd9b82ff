-- reStructuredText → prose: labels, directives, table rules and markup go; the title is the first underlined line.
with prose as (
    select
        file,
        text,
        regexp_replace(
            regexp_replace(
                regexp_replace(text, '(?m)^\.\. .*$|^[-=~+|\s]{4,}$|^\s*:[a-z-]+:\s*$', '', 'g'),
                ':[a-z]+:`~?([^`<]*)[^`]*`', '\1', 'g'
            ),
            '\*\*|`|_$', '', 'g'
        ) as body
    from {{ source('datasets') }}
)
select
    regexp_extract(file, '([^/]+)\.rst$', 1) as seed_id,
    'datasets' as source,
    'BSD-3-Clause' as license,
    regexp_extract(text, '(?m)^([^\n]+)\n[-=~]{4,}\s*$', 1) as title,
    {{ tidy('body') }} as passage,
    'en' as lang
from prose
