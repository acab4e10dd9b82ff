-- one column to read, whatever the source calls it
select __TEXT__ as text
from {{ source('__SOURCE__') }}
where length(__TEXT__) >= {{ var('min_chars') }}
