select id, topic, text, {{ shout('topic') }} as title from {{ source('notes') }} where length(text) >= {{ var('min_words') }}
