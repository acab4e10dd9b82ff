select topic, text, year from {{ source('notes') }} where {{ says_something('text') }}
union all
select topic, text, null as year from {{ source('extras') }} where {{ says_something('text') }}
