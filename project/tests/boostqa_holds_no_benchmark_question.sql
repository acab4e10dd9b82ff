-- No benchmark question of some length stands in a training text word for word.
select boostqa.text, benchmark_texts.question_id
from {{ ref('boostqa') }} as boostqa
join {{ ref('benchmark_texts') }} as benchmark_texts
  on length(benchmark_texts.text) >= 40
 and contains({{ normalised('boostqa.text') }}, {{ normalised('benchmark_texts.text') }})
