-- A seed whose rows stand on both sides of the split would leak.
select source, seed_id
from {{ ref('boostqa') }}
group by source, seed_id
having count(distinct split) > 1
