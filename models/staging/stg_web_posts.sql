-- The post's own text, tags out; comments and votes are left behind.
select
    id as seed_id,
    'web_posts' as source,
    'Apache-2.0' as license,
    json_extract_string(content, '$.title') as title,
    {{ tidy(without_tags("json_extract_string(content, '$.body')")) }} as passage,
    {{ language_of("json_extract_string(content, '$.body')") }} as lang
from {{ source('web_posts') }}
