select id, topic, text from {{ source('notes') }} where length(text) >= {{ var('min_words') }}
