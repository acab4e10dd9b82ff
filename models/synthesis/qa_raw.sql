-- Both ways of synthesis in one table. `seed_difficulty` is the passage's label; the question gets its own in qa_labelled.
select
    seed_id, source, license, title, passage, lang, discipline,
    difficulty as seed_difficulty,
    'multigrade' as method,
    grade,
    cast(null as varchar) as challenge,
    question,
    answer,
    reasoning
from {{ ref('stem_multigrade') }}
union all
select
    seed_id, source, license, title, passage, lang, discipline,
    difficulty as seed_difficulty,
    'high_difficulty' as method,
    'expert' as grade,
    challenge,
    question,
    answer,
    reasoning
from {{ ref('high_difficulty') }}
