select
    source,
    license,
    split,
    count(*) as rows,
    sum(tokens)::bigint as tokens
from {{ ref('boostqa') }}
group by source, license, split
order by source, license, split
