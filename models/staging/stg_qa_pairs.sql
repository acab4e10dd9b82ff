-- A pair becomes one passage: what can be asked about it is what it says.
select
    no as seed_id,
    'qa_pairs' as source,
    'Apache-2.0' as license,
    topic as title,
    trim(stem) || E'\n' || trim(response) as passage,
    language as lang
from {{ source('qa_pairs') }}
